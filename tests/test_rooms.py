"""Imports between the rooms run one way, as `docs/architecture.md` draws them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# a room may import those of later rows, and itself
ROWS = (
    ("cli",),
    ("stages", "commands"),
    ("training", "reporting"),
    ("studies", "versioning", "planning"),
    ("shards", "scoring", "inference"),
    ("datasets",),
    ("imaging",),
    ("core",),
    ("hsam",),
)
LEVEL = {room: row for row, rooms in enumerate(ROWS) for room in rooms}
CLOSED = ("stages", "commands")  # whose modules don't even know each other


def room(module: str) -> str:
    package, _, rest = module.partition(".")
    return package if package == "hsam" else rest.partition(".")[0]


def imports() -> Iterator[tuple[str, str]]:
    """Every pair of importing and imported module, imports inside functions too."""
    for path in sorted((*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("hsam/**/*.py"))):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: name the package in full"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                if name.partition(".")[0] in ("pipeline", "hsam"):
                    yield module, name


def test_arrows_run_down():
    upward = [
        f"{module} imports {name}"
        for module, name in imports()
        if room(module) not in (room(name), "__init__")
        and not LEVEL[room(module)] < LEVEL[room(name)]
    ]
    assert upward == []


@pytest.mark.parametrize("closed", CLOSED)
def test_no_stage_imports_a_stage_and_no_command_a_command(closed):
    inside = [pair for pair in imports() if room(pair[0]) == room(pair[1]) == closed]
    assert inside == []


def test_the_pipeline_names_modules_of_the_library():
    """The digest of a stage's code follows modules, and `hsam` itself imports none."""
    modules = {path.stem for path in (ROOT / "hsam").iterdir()}
    whole = [
        f"{module} imports {name}"
        for module, name in imports()
        if room(module) != "hsam"
        and room(name) == "hsam"
        and ".".join(name.split(".")[1:2]) not in modules
    ]
    assert whole == []


def test_every_room_says_what_it_is_for():
    """Two lines: what lives there, and what must not."""
    packages = [path for path in ROOT.glob("pipeline/**/__init__.py")]
    packages += [ROOT / "hsam/rivals/__init__.py", ROOT / "hsam/weights/__init__.py"]
    silent = [
        path.parent.relative_to(ROOT).as_posix()
        for path in packages
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []
    assert {path.parent.name for path in packages if path.parent.parent.name == "pipeline"} == (
        set(LEVEL) - {"hsam"}
    )
