"""A DVC project beside the user's, in which a run's outputs stand where `dvc.yaml` names them.

DVC itself computes their hashes there, puts them into the user's cache and writes `dvc.lock`; the
user's working tree, `dvc.lock` and DVC's locks are left alone. The project stays, so that DVC
remembers hashes of raw volumes from one run to the next.
"""

import logging
import shutil
from collections.abc import Iterable, Mapping
from contextlib import chdir, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Params
from pipeline.core.params.render import render

PLACE = Path(".dvc", "tmp", "hsam")
CODE = ("pipeline", "hsam")
LOCK = "dvc.lock"
REPORT = "report"


@dataclass(frozen=True)
class Bench:
    """The project.

    Attributes:
        repository: root of the user's.
        path: root of this one.
    """

    repository: Path
    path: Path

    @classmethod
    def of(cls, repository: Path) -> "Bench":
        """The project beside a repository, made where there is none."""
        repository = repository.resolve()
        bench = cls(repository, repository / PLACE)
        (bench.path / ".dvc").mkdir(parents=True, exist_ok=True)
        files.write_text(
            bench.path / ".dvc" / "config",
            "[core]\n    analytics = false\n    no_scm = true\n"
            f"[cache]\n    dir = {_cache_of(repository)}\n",
        )
        for name in CODE:
            if (repository / name).is_dir():
                _link(bench.path / name, repository / name)
        return bench

    def lock_of(self, params: Params, folders: Mapping[str, Path], report: Path | None) -> str:
        """`dvc.lock` of a run; its outputs are in the cache then.

        Stages of which an output is missing count as not run, with stand-ins for what is missing:
        DVC restores nothing of an experiment of which it can't restore all.

        Args:
            params: all parameters of the run.
            folders: stage to the folder of its outputs.
            report: the page, if there is one.

        Raises:
            UserError: DVC can't.
        """
        self._lay_out(params, folders, report)
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        logging.getLogger("dvc").setLevel(logging.ERROR)  # not of every folder that is empty
        try:
            # DVC takes stages' paths from the working directory
            with chdir(self.path), Repo() as project:
                stages = list(project.index.stages)
                unfinished = {stage.name for stage in stages if _stand_in(stage)}
                for stage in stages:
                    options = {"force": True, "allow_missing": True, "relink": False}
                    project.commit(target=stage.name, **options)
        except DvcException as error:
            raise UserError(f"{self.path}: DVC says: {' '.join(str(error).split())}") from None
        return self._reopened(unfinished)

    def _reopened(self, unfinished: Iterable[str]) -> str:
        """dvc.lock, in which these stages lack what would make them count as done."""
        yaml = YAML()
        content = yaml.load((self.path / LOCK).read_text(encoding="utf-8"))
        for name in unfinished:
            for part in ("deps", "params"):
                content["stages"][name].pop(part, None)
        text = StringIO()
        yaml.dump(content, text)
        return text.getvalue()

    def _lay_out(self, params: Params, folders: Mapping[str, Path], report: Path | None) -> None:
        for name in ("results", "reports", "data", LOCK):
            _remove(self.path / name)
        for name in ("dvc.yaml", ".dvcignore", "requirements.txt"):
            with suppress(FileNotFoundError):
                shutil.copyfile(self.repository / name, self.path / name)
        files.write_text(self.path / "params.yaml", render(params))
        self._keep_raw_hashes(params)
        self._show_raw(params)
        for stage, folder in folders.items():
            if folder.is_dir():
                _hard_link(folder, self.path / "results" / stage)
        if report is not None and report.is_file():
            _hard_link(report, self.path / "reports" / "report.html")

    def _keep_raw_hashes(self, params: Params) -> None:
        """What the user's dvc.lock says of stages whose files may be elsewhere by now."""
        try:
            known = YAML(typ="safe").load((self.repository / LOCK).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        stages = known.get("stages", {})
        kept = {name: stages[name] for name in ("phantom", "prepare") if name in stages}
        if _phantom_of(kept) != params.dataset.phantom.model_dump(mode="json"):
            kept.pop("phantom", None)
        with (self.path / LOCK).open("w", encoding="utf-8") as file:
            YAML().dump({"schema": "2.0", "stages": kept}, file)

    def _show_raw(self, params: Params) -> None:
        """The raw volumes at the path that the parameters name, unless that is the same anyway."""
        root = Path(params.dataset.root)
        source, target = self.repository / root, self.path / root
        if root.is_absolute() or ".." in root.parts or not source.is_dir():
            return
        if root == Path("data/raw/phantom"):
            _hard_link(source, target)  # an output: DVC takes none behind a link
        else:
            _link(target, source.resolve())


def _stand_in(stage: Any) -> bool:
    """Write a file in place of each output that is missing; whether there are any."""
    missing = [Path(out.fs_path) for out in stage.outs if not Path(out.fs_path).exists()]
    for path in missing:
        files.write_text(path, f"This run has none: dvc repro {stage.name}\n")
    return bool(missing)


def _phantom_of(stages: Mapping[str, Any]) -> Any:
    return stages.get("phantom", {}).get("params", {}).get("params.yaml", {}).get("dataset.phantom")


def _cache_of(repository: Path) -> str:
    from dvc.repo import Repo

    with Repo(str(repository)) as opened:
        return str(opened.cache.local_cache_dir)


def _link(path: Path, target: Path) -> None:
    if path.is_symlink() and path.readlink() == target:
        return
    _remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _hard_link(source: Path, target: Path) -> None:
    """The same files at another path; copies where the file system has no links."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link_or_copy)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(source, target)


def _link_or_copy(source: Any, target: Any) -> None:
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
