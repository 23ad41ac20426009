"""The runs that there are: trainings finished and unfinished, imported models, their evaluations.

Reads the records in run folders, and neither weights nor tables; what can't be read is left out.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipeline.core import files, locks, run_names
from pipeline.core.errors import UserError
from pipeline.core.owners import RECORD
from pipeline.core.run_folder import BROUGHT, DONE, KEY, LOCK, MODEL_FILES, read_provenance

METRICS, SPLIT = "metrics.json", "split.json"
FINISHED, UNFINISHED, AT_WORK = "finished", "unfinished", "at work"
IDENTITY = ("stage", "params", "inputs", "code")  # what two records of one run share


@dataclass(frozen=True, eq=False)
class Work:
    """A run folder of any stage, or a folder with an imported model.

    Attributes:
        path: the folder.
        key: its record: stage, params, inputs, code.
        outputs: file to SHA-256, once the stage has finished.
    """

    path: Path
    key: Mapping[str, Any]
    outputs: Mapping[str, str]

    @property
    def stage(self) -> str:
        """The stage that works here."""
        return str(self.key.get("stage"))

    @property
    def out(self) -> Path:
        """Where its outputs lie."""
        return self.path / "out"

    @property
    def is_model(self) -> bool:
        """Whether it trains a model, or holds an imported one."""
        return self.stage in ("train", *BROUGHT)

    @property
    def name(self) -> str:
        """What people call it."""
        return run_names.of(self.path) if self.stage == "train" else self.path.name

    @property
    def data_set(self) -> str | None:
        """The data set's name, as the folder's name or the model's record has it."""
        stem, middle, _ = self.path.name.rpartition(f"-{self.stage}-")
        return stem if middle else self.record.get("data_set")

    @property
    def record(self) -> Mapping[str, Any]:
        """The content of model.json, empty where there is none yet."""
        return mapping(self.out / MODEL_FILES[0])

    @property
    def state(self) -> str:
        """FINISHED, UNFINISHED, or AT_WORK: a process has it in hand."""
        if self.outputs:
            return FINISHED
        return AT_WORK if self.in_use() else UNFINISHED

    @property
    def date(self) -> float:
        """When it was finished, or last written to; seconds since 1970."""
        marks = (self.path / DONE, self.out / MODEL_FILES[0], self.path)
        return next(path.stat().st_mtime for path in marks if path.exists())

    def in_use(self) -> bool:
        """Whether a process, of this host or by its record of another, works in it."""
        if (self.path / RECORD).exists():
            return True
        if not (self.path / LOCK).exists():
            return False
        release = locks.try_lock(self.path / LOCK)
        if release is not None:
            release()
        return release is None

    def is_at(self, record: Mapping[str, Any]) -> bool:
        """Whether a record beside published outputs is this run's."""
        mine = read_provenance(self.out) or self.key  # a search's key names its trials alone
        return all(record.get(part) == mine.get(part) for part in IDENTITY)

    def size(self) -> int:
        """Bytes of all its files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    def hashes(self) -> Mapping[str, str]:
        """SHA-256 of its model's files, as they were recorded."""
        return {name: self.outputs.get(name, "") for name in MODEL_FILES}


def all_work(runs: Path) -> list[Work]:
    """Every folder with a run's record, sorted by name; none where there is no such folder."""
    if not Path(runs).is_dir():
        return []
    folders = (path for path in files.entries(runs) if path.is_dir())
    return [work for path in folders if (work := _work(path)) is not None]


def models(runs: Path) -> list[Work]:
    """Trainings and imported models, the newest first."""
    found = [work for work in all_work(runs) if work.is_model]
    return sorted(found, key=lambda work: work.date, reverse=True)


def evaluations(hashes: Mapping[str, str], work: Iterable[Work]) -> list[Work]:
    """The finished evaluations of a model, given by its files' SHA-256; the newest first."""
    found = [
        each
        for each in work
        if each.stage == "evaluate" and each.outputs and is_of(hashes, each.key)
    ]
    return sorted(found, key=lambda each: each.date, reverse=True)


def published(places: Iterable[Path]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Folders of published outputs anywhere below these, each with its record."""
    for place in places:
        for path in sorted(Path(place).rglob("provenance.json")):
            yield path.parent, read_provenance(path.parent)


def find_model(given: Path, runs: Path) -> Path:
    """The folder that a person means by a run: of a model, or one that holds it.

    Args:
        given: a run's name; or a folder of a model, of all results, or of its evaluation.
        runs: folder of the run folders.

    Raises:
        UserError: no such folder and no run of that name, or more than one of it.
    """
    if not given.is_dir():
        return _named(given, runs).path
    for folder in (given, given / "out"):
        if (folder / METRICS).is_file() and not has_model(folder):
            return _evaluated(folder, runs)
    return given


def find_scores(given: Path, runs: Path) -> Path:
    """The folder of the scores that a person means by a run.

    Args:
        given: a run's name; a folder of scores, of a model, or of all results.
        runs: folder of the run folders.

    Raises:
        UserError: as for `find_model`, or the run hasn't been evaluated.
    """
    if given.is_dir():
        model = next((place for place in (given, given / "out") if has_model(place)), None)
        if model is None or (given / METRICS).is_file():
            return given
        hashes = _hashes(model)
        beside = given.parent / "evaluate"
        if is_of(hashes, read_provenance(beside)):
            return beside
    else:
        run = _named(given, runs)
        if run.state != FINISHED:
            raise UserError(f"{given}: is {run.state}, so it has no scores; train it to its end.")
        hashes = run.hashes()
    if scored := evaluations(hashes, all_work(runs)):
        return scored[0].out
    raise UserError(f"{given}: has no scores in {runs}; `hsam evaluate --run {given}` makes some.")


def _named(given: Path, runs: Path) -> Work:
    name = str(given)
    known = models(runs)
    found = [work for work in known if work.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        folders = " and ".join(sorted(str(work.path) for work in found))
        raise UserError(
            f"{name}: {folders} have this name; give a folder instead, or another name with `hsam "
            "runs name FOLDER NAME`."
        )
    near = get_close_matches(name, [work.name for work in known], 3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    removed = os.sep in name or "/" in name
    what = "there is no such folder; was it removed? " if removed else "no folder, and no run of "
    what += "" if removed else f"that name in {runs}; "
    raise UserError(f"{name}: {what}{hint}`hsam runs` lists the runs that there are.")


def _evaluated(scores: Path, runs: Path) -> Path:
    """The model's folder that an evaluation was made of."""
    record, beside = read_provenance(scores), scores.parent / "train"
    if has_model(beside) and is_of(_hashes(beside), record):
        return beside
    for work in models(runs):
        if work.outputs and is_of(work.hashes(), record):
            return work.path
    raise UserError(
        f"{scores}: is an evaluation, and its model is neither in {beside} nor in {runs}; was it "
        "removed? `hsam runs` lists the runs that there are."
    )


def _hashes(folder: Path) -> Mapping[str, str]:
    return {name: files.sha256(folder / name) for name in MODEL_FILES}


def is_of(hashes: Mapping[str, str], evaluation: Mapping[str, Any]) -> bool:
    """Whether an evaluation, by its record, is one of the model with these hashes."""
    inputs = evaluation.get("inputs", {})
    return all(inputs.get(name) == value for name, value in hashes.items())


def has_model(folder: Path) -> bool:
    """Whether a folder holds the files of a model."""
    return all((folder / name).is_file() for name in MODEL_FILES)


def _work(path: Path) -> Work | None:
    outputs = mapping(path / DONE).get("outputs")
    key = mapping(path / KEY)
    if not key:  # of an imported model, which has its record among its outputs
        key = read_provenance(path / "out")
        if key.get("stage") not in BROUGHT:
            return None
    return Work(path, key, outputs if isinstance(outputs, dict) else {})


def mapping(path: Path) -> Mapping[str, Any]:
    """The mapping in a JSON file; empty where it can't be read as one."""
    try:
        found = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
