"""Content-addressed folders where a stage does its work: `runs/<data set>-<stage>-<hash>/`.

The hash covers the parameters that the stage reads, its inputs and its code, so a folder is
either the right one or not found. An interrupted run goes on in its folder; either workflow
engine finds there what the other has made. The folder's outputs are published to the place
that the engines know by renaming.
"""

import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hsam.version import __version__
from pipeline.core import files, home, installed, locks, run_names, sources
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.core.owners import owning
from pipeline.core.writable import naming_unwritable

WAIT_SECONDS = 2.0  # between two looks at a lock that is waited for
DONE, KEY, LOCK = "done.json", "key.json", ".lock"
PROVENANCE = "provenance.json"
MODEL_FILES = ("model.json", "model.safetensors")  # of a trained or imported model
SNAPSHOTS = "snapshots"  # beside a trained model: folders of models on the way to it
# stages in the provenance of models that were not trained here
IMPORT, PULL = "import-checkpoint", "pull"
BROUGHT = (IMPORT, PULL)
LIBRARIES = ("numpy", "torch", "segment-anything", "pyarrow", "nibabel", "SimpleITK", "optuna")


@dataclass(frozen=True)
class RunFolder:
    """One stage's working folder.

    Attributes:
        path: the folder; what is written to `path / "out"` is what the stage publishes.
        key: what the provenance records: stage, params, inputs (name to SHA-256), code digest.
    """

    path: Path
    key: Mapping[str, Any]

    @property
    def out(self) -> Path:
        """The folder of the files to publish."""
        return self.path / "out"

    def is_done(self) -> bool:
        """Whether the stage has finished here with these parameters, and every output still has
        its recorded hash.
        """
        try:
            recorded = files.read_json(self.path / DONE)["outputs"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False
        params = read_provenance(self.out).get("params")
        return recorded == _hashes(self.out) and params == _as_json(self.key["params"])

    def finish(self, **facts: Any) -> None:
        """Write the provenance beside the outputs and mark the folder as done.

        Args:
            facts: what the provenance says besides the key, as JSON values.
        """
        files.write_json(self.out / PROVENANCE, provenance(self.key) | facts)
        files.write_json(self.path / DONE, {"outputs": _hashes(self.out)})

    def other_at(self, target: Path) -> str | None:
        """How the run published at a folder differs from this one, in words.

        Returns:
            Names of parameters and inputs; None where the folder holds this run, or none at all.
        """
        found = read_provenance(target)
        mine = _as_json(self.key)
        if not found or all(found.get(name) == value for name, value in mine.items()):
            return None
        return _differences(found, mine)

    def publish(self, target: Path) -> None:
        """Put a copy of the outputs at `target` in one rename; what stood there goes away."""
        with naming_unwritable(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-new-", dir=target.parent))
            try:
                shutil.copytree(self.out, staging / target.name, copy_function=shutil.copyfile)
                # copytree keeps folders' times, which Snakemake compares with those of new files
                for folder in (staging / target.name).rglob("*/"):
                    os.utime(folder)
                files.replace_folder(staging / target.name, target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def open_run(
    runs: Path,
    data_set: str,
    stage: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, str],
    choice: sources.Chosen = sources.NOTHING,
    named_by: Mapping[str, Any] | None = None,
    module: str | None = None,
    wait: bool = False,
    shared: bool = False,
) -> Iterator[RunFolder]:
    """The run folder for these parameters and inputs, created if new, locked while in use.

    Args:
        runs: folder of all run folders, on a local disk or one that hosts share.
        data_set: the data set's name, for people.
        stage: the stage's name; its code is part of the hash.
        params: what the stage reads (`params.stage_params`).
        inputs: name to SHA-256 of each input.
        choice: code that names in the parameters stand for.
        named_by: the values that name the folder, where a change of others in `params` goes on
            with the work in it; None: all of `params`.
        module: whose code is part of the hash; None: the stage's.
        wait: for another process that is at work in the folder.
        shared: work in it beside other processes that share it.

    Raises:
        UserError: another process is at work in the same folder, or the folder belongs to another
            run.
    """
    record = {
        "stage": stage,
        "params": dict(params),
        "inputs": dict(inputs),
        "code": sources.digest(module or f"pipeline.stages.{stage}", choice),
    }
    key = record if named_by is None else record | {"params": dict(named_by)}
    path = Path(runs) / f"{data_set}-{stage}-{files.digest(key)[:12]}"
    with naming_unwritable(path):
        release = _locked(path, shared)
        if release is None and wait:
            say(f"{path}: waiting for another process that works here")
        while release is None and wait:
            time.sleep(WAIT_SECONDS)
            release = _locked(path, shared)
    if release is None:
        raise UserError(f"{path}: another process is working here; wait for it or stop it first.")
    try:
        _claim(path, key)
        try:
            # those that share a folder each have a record of their own
            with naming_unwritable(path), nullcontext() if shared else owning(path):
                yield RunFolder(path, record)
        except UserError:
            _forget_if_untouched(path)
            raise
    finally:
        release()


def _locked(path: Path, shared: bool) -> locks.Release | None:
    """Make the folder and lock it; None: another process is at work there."""
    while True:
        (path / "out").mkdir(parents=True, exist_ok=True)
        try:
            return locks.try_lock(path / LOCK, shared=shared)
        except FileNotFoundError:
            continue  # one whose work was refused has just removed it


def provenance(key: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage's provenance.json holds: the key, the commit and the libraries' versions."""
    return {**key, **_environment()}


def read_provenance(folder: Path) -> Mapping[str, Any]:
    """What provenance.json beside a stage's outputs says; empty where there is none to be read."""
    try:
        found = files.read_json(folder / PROVENANCE)
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _claim(path: Path, key: Mapping[str, Any]) -> None:
    """Write the key into a new folder, or compare it with the one there: folders get renamed."""
    try:
        found = files.read_json(path / KEY)
    except FileNotFoundError:
        files.write_json(path / KEY, key)
        return
    except ValueError:
        found = None
    if found != _as_json(key):
        raise UserError(
            f"{path}: belongs to another run, with other {_differences(found, key)}; move it away "
            "or work in another folder (--runs)."
        )


def _as_json(value: Any) -> Any:
    """The value as it comes back from a JSON file: tuples are lists there."""
    return json.loads(json.dumps(value))


def _forget_if_untouched(path: Path) -> None:
    """Remove a run folder in which nothing was done: what was refused leaves nothing behind."""
    nothing = {KEY, LOCK, run_names.FILE, "out"}
    if {entry.name for entry in path.iterdir()} <= nothing and not any((path / "out").iterdir()):
        shutil.rmtree(path, ignore_errors=True)  # Windows keeps a file that is locked


def _differences(found: Any, key: Mapping[str, Any]) -> str:
    """Names of the entries that two keys don't share: train.epochs, manifest, code."""
    mine, other = _entries(key), _entries(found if isinstance(found, dict) else {})
    return ", ".join(name for name, value in mine.items() if other.get(name) != value) or "content"


def _entries(key: Mapping[str, Any]) -> dict[str, Any]:
    entries = {name: key.get(name) for name in ("stage", "code")} | dict(key.get("inputs", {}))
    for block, value in key.get("params", {}).items():
        inner = value if isinstance(value, dict) else {None: value}
        entries |= {block if n is None else f"{block}.{n}": item for n, item in inner.items()}
    return entries


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): files.sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@cache
def _environment() -> dict[str, Any]:
    versions = {"python": platform.python_version(), "hsam": __version__}
    for name in LIBRARIES:
        if (found := installed.version(name)) is not None:
            versions[name] = found
    return {"commit": _commit(), "versions": versions}


def _commit() -> str | None:
    """The commit of the code; None where it is installed, maybe inside another's repository."""
    if not home.is_clone():
        return None
    command = ["git", "-C", str(home.ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
