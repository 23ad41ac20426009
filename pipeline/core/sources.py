"""Which code a stage's results depend on, and its digest: other code means another run folder.

Counted are the modules that the stage's module imports, directly or not, and those that names in
the parameters stand for (the data set, the model). Of a module its syntax tree counts without
docstrings, comments, layout, annotations and the words of messages. Not counted is what computes
no result: `pipeline/core` (parameter models, console, files, ...; the parameters' values are in a
run's key already) and tables of names, of which the chosen entry counts.
"""

import ast
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hsam.backbones import get_backbone
from hsam.registry import MODELS
from pipeline.core.errors import UserError
from pipeline.core.home import LIBRARY, ROOT
from pipeline.core.params.blocks import Params
from pipeline.core.registry import DATASETS

PACKAGES = ("pipeline", "hsam")
TEMPLATES = Path("pipeline", "reporting", "templates")
NOT_COUNTED = (
    "pipeline.core",
    "hsam.__init__",
    "hsam.backbones",
    "hsam.hugging_face",
    "hsam.registry",
    "hsam.version",
)
MESSAGES = ("say", "warn")  # functions that only tell something


@dataclass(frozen=True)
class Chosen:
    """What names in the parameters stand for.

    Attributes:
        modules: modules that are imported by name.
        entries: the entries of tables that were chosen, as text.
    """

    modules: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()


NOTHING = Chosen()


def data_set(name: str) -> Chosen:
    """The code of one data set."""
    return Chosen(modules=(DATASETS[name].partition(":")[0],))


def model(name: str, backbone: str | None, hugging_face: Mapping[str, Any] | None = None) -> Chosen:
    """The code of one model and its image encoder.

    Args:
        name: of the model.
        backbone: of the encoder; None for a model without one.
        hugging_face: of a trained model's config, which its folder needn't be there for.

    Raises:
        UserError: the folder of an encoder in Hugging Face form isn't there or has none.
    """
    entry = MODELS[name]
    alone = Chosen((entry.module,), (repr(entry),))
    if backbone is None or "backbone" not in entry.takes:
        return alone
    below = _encoder(backbone, hugging_face)
    return Chosen((*alone.modules, *below.modules), (*alone.entries, *below.entries))


def encoder(backbone: str) -> Chosen:
    """The code of an image encoder and of what loads its weights, for any model.

    Raises:
        UserError: the folder of an encoder in Hugging Face form isn't there or has none.
    """
    below = _encoder(backbone)
    return Chosen(("hsam.adapted_encoder", *below.modules), below.entries)


def _encoder(backbone: str, hugging_face: Mapping[str, Any] | None = None) -> Chosen:
    try:
        line = get_backbone(backbone, hugging_face)
    except ValueError as error:
        raise UserError(f"train.backbone: {error}.") from None
    return Chosen((line.module,), (line.essence(),))


def chosen(stage: str, params: Params) -> Chosen:
    """What the parameters choose of the code that a stage uses."""
    if stage in ("prepare", "report"):
        return data_set(params.dataset.name)
    if stage in ("search", "train", "evaluate"):
        return model(params.train.model, params.train.backbone)
    return NOTHING


def stage_files(stage: str, choice: Chosen = NOTHING) -> list[Path]:
    """The files that a stage's results depend on, as a clone's root has them, sorted."""
    return _files(f"pipeline.stages.{stage}", choice)


def stage_digest(stage: str, choice: Chosen = NOTHING) -> str:
    """SHA-256 over the code that a stage's results depend on."""
    return digest(f"pipeline.stages.{stage}", choice)


def digest(module: str, choice: Chosen = NOTHING) -> str:
    """SHA-256 over the code that what a module computes depends on."""
    total = hashlib.sha256()
    for path in _files(module, choice):
        text = (_base(ROOT, path.parts[0]) / path).read_text(encoding="utf-8")
        content = _essence(text) if path.suffix == ".py" else text
        total.update(f"{path.as_posix()}\n{content}\n".encode())
    total.update("\n".join(choice.entries).encode())
    return total.hexdigest()


def _files(module: str, choice: Chosen) -> list[Path]:
    """The counted files of a module and of what it imports, and the templates of their names."""
    names = sorted(filter(_counts, _closure((module, *choice.modules))))
    paths = (_path(ROOT, name) for name in names)
    files = (path for path in paths if _has_code(path))
    templates = [
        path for name in names for path in (ROOT / TEMPLATES).glob(f"{name.rpartition('.')[2]}.*")
    ]
    library = _base(ROOT, "hsam")
    return sorted(
        path.relative_to(ROOT if path.is_relative_to(ROOT) else library)
        for path in (*files, *templates)
    )


def _counts(name: str) -> bool:
    name = f"{name}.__init__" if name in PACKAGES else name
    return not any(name == skipped or name.startswith(f"{skipped}.") for skipped in NOT_COUNTED)


@cache
def _essence(source: str) -> str:
    """A module's syntax tree without what can't change a result."""
    return ast.dump(_Essence().visit(ast.parse(source)))


class _Essence(ast.NodeTransformer):
    """Drops docstrings, annotations, imports for type checkers and the words of messages."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without_docstring(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        # the name of a dataclass's field counts, its type doesn't
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if _for_type_checkers(node) else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        call = node.value
        name = call.func if isinstance(call, ast.Call) else None
        tells = isinstance(name, ast.Name) and name.id in MESSAGES
        return None if tells else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        exception = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(exc=exception, cause=None)

    def _without_docstring(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        return self.generic_visit(node)


def _for_type_checkers(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def _closure(modules: Iterable[str]) -> set[str]:
    """The modules of the repository that these import, directly or not, and these."""
    found: set[str] = set()
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += _imports(ROOT, name)
    return found


@cache
def _imports(root: Path, name: str) -> tuple[str, ...]:
    """Modules of the repository that a module imports, inside functions as well."""
    if name == "hsam":  # gives its names at their first use; users name the module instead
        return ()
    names = {".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)}
    pending: list[ast.AST] = [ast.parse(_path(root, name).read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if _for_type_checkers(node):
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(
        sorted(
            item for item in names if item.split(".")[0] in PACKAGES and _path(root, item).is_file()
        )
    )


def _has_code(path: Path) -> bool:
    """Whether a module holds more than the docstring of its folder."""
    return _holds_code(path.read_text(encoding="utf-8"))


@cache
def _holds_code(source: str) -> bool:
    return any(not isinstance(node, ast.Expr) for node in ast.parse(source).body)


def _path(root: Path, name: str) -> Path:
    parts = name.split(".")
    base = _base(root, parts[0]).joinpath(*parts)
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _base(root: Path, package: str) -> Path:
    """The folder that holds a package: a clone's root has both, a wheel keeps the library apart."""
    return root if (root / package).is_dir() else LIBRARY.parent
