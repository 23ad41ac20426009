"""Which source files a stage uses, and their digest: changed code means a new run folder."""

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "hsam")


def stage_files(stage: str) -> list[Path]:
    """Files of `pipeline` and `hsam` that the stage's module imports, directly or not.

    The stage's templates, `pipeline/reporting/templates/<stage>.*`, belong to them. Paths are
    relative to the repository root and sorted; imports inside functions count.
    """
    found: set[str] = set()
    pending = [f"pipeline.stages.{stage}"]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += _imports(name)
    templates = (ROOT / "pipeline" / "reporting" / "templates").glob(f"{stage}.*")
    modules = (path for path in map(_path, found) if _has_code(path))
    return sorted(path.relative_to(ROOT) for path in (*modules, *templates))


def stage_digest(stage: str) -> str:
    """SHA-256 over the stage's files; of source code the syntax tree counts, not its layout."""
    total = hashlib.sha256()
    for path in stage_files(stage):
        text = (ROOT / path).read_text(encoding="utf-8")
        content = ast.dump(ast.parse(text)) if path.suffix == ".py" else text
        total.update(f"{path.as_posix()}\n{content}\n".encode())
    return total.hexdigest()


@cache
def _imports(name: str) -> tuple[str, ...]:
    tree = ast.parse(_path(name).read_text(encoding="utf-8"))
    names = {".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(name, node)
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return tuple(
        sorted(item for item in names if item.split(".")[0] in PACKAGES and _path(item).is_file())
    )


def _has_code(path: Path) -> bool:
    """Whether a module holds more than the docstring of its folder."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(not isinstance(node, ast.Expr) for node in body)


def _absolute(name: str, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    package = name.split(".") if _path(name).name == "__init__.py" else name.split(".")[:-1]
    parts = package[: len(package) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _path(name: str) -> Path:
    base = ROOT.joinpath(*name.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
