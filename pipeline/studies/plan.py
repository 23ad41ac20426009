"""The runs of a study, and where each of their stages has its place.

    results/<study>/<arm>/draw-D-seed-S/{search,train,evaluate}/   a run
    results/<study>/<arm>/draw-D-seed-S/search/                     of the arm's first seed, for all
    results/<study>/<arm>/draw-D-seed-S-fold-F/                     a run of a study over folds
    results/data/<data set>-<hash>/prepare/                         volumes prepared alike, shared
    results/data/<data set>-<hash>/<split>-<hash>/                  slices split alike, shared

A study that is run on other parameters than its own has `-on-NAME` behind its name. Two runs that
would be the same work, in one study or in two, have the same `work`; the first in the order of the
studies' names does it, the others copy it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pipeline import datasets
from pipeline.core.errors import UserError, few
from pipeline.core.files import digest
from pipeline.core.params.blocks import Params, stage_params
from pipeline.datasets.phantom import Phantom
from pipeline.shards.subjects import owners
from pipeline.studies import files
from pipeline.studies.files import Collection, StudyFile

DATA = "data"  # the folder of what the studies share; no study's name
RUN = re.compile(
    r"^(?P<study>[^/]+)/(?P<arm>[^/]+)/draw-(?P<draw>\d+)-seed-(?P<seed>\d+)"
    r"(?:-fold-(?P<fold>\d+))?$"
)


@dataclass(frozen=True)
class Run:
    """One training of a study, or predictions that it scores.

    Attributes:
        study: the study's name, with what it is run on: its folder.
        arm: the arm's name.
        draw, seed: values of `split.seed` and `train.seed`.
        params: all of its parameters.
        searcher: the seed of the run whose search it takes its values from; None: of no search.
        predictions: folder of what another tool predicted; such a run is scored, never trained.
        fold: value of `split.fold`, what is tested on; None: the study has no folds.
    """

    study: str
    arm: str
    draw: int
    seed: int
    params: Params
    searcher: int | None = None
    predictions: Path | None = None
    fold: int | None = None

    @property
    def name(self) -> str:
        """Its folder within the study's, such as rank-4/draw-1-seed-2."""
        return self._name(self.seed)

    @property
    def search_name(self) -> str:
        """The name of the run whose search it takes its values from."""
        return self._name(self.seed if self.searcher is None else self.searcher)

    def _name(self, seed: int) -> str:
        fold = "" if self.fold is None else f"-fold-{self.fold}"
        return f"{self.arm}/draw-{self.draw}-seed-{seed}{fold}"

    @property
    def label(self) -> str:
        """A name for tables of runs, such as table10-rank-4-d1-s2."""
        fold = "" if self.fold is None else f"-f{self.fold}"
        return f"{self.study}-{self.arm}-d{self.draw}-s{self.seed}{fold}"

    @cached_property
    def data(self) -> str:
        """The folder of its prepared volumes."""
        values = stage_params(self.params, "prepare")
        return f"{DATA}/{self.params.dataset.name}-{digest(values)[:8]}"

    @cached_property
    def split(self) -> str:
        """The folder of its split."""
        seed = self.params.seed_of("split")
        values = self.params.split.model_dump(mode="json") | {"seed": seed}
        return f"{self.data}/draw-{seed}-{digest(values)[:8]}"

    @cached_property
    def work(self) -> str:
        """Equal for runs that compute the same."""
        values: dict[str, Any] = {"split": self.split}
        if self.predictions is not None:
            values |= {"predictions": str(self.predictions)}
            return digest(values | stage_params(self.params, "evaluate"))
        if self.searcher is not None:
            values["searcher"] = self.searcher
        for stage in ("search", "train", "evaluate"):
            values |= stage_params(self.params, stage)
        return digest(values)

    def places(self, results: Path) -> dict[str, Path]:
        """The folder of each stage's outputs."""
        own = results / self.study
        return {
            "prepare": results / self.data / "prepare",
            "split": results / self.split,
            "search": own / self.search_name / "search",
            "train": own / self.name / "train",
            "evaluate": own / self.name / "evaluate",
        }


@dataclass(frozen=True)
class Study:
    """A study with its runs.

    Attributes:
        name: of its file.
        on: what it is run on.
        file: its content.
        runs: arm by arm, draw by draw, seed by seed, fold by fold.
    """

    name: str
    on: tuple[str, ...]
    file: StudyFile
    runs: tuple[Run, ...]

    @property
    def folder(self) -> str:
        """Its folder in results."""
        return folder_of(self.name, self.on)

    @property
    def folds(self) -> int | None:
        """How many parts the cases are dealt into, each tested once; None: there are none."""
        return files.folds_of(self.file, self.on)


def folder_of(name: str, on: Sequence[str]) -> str:
    """A study's folder in results: its name, and what it is run on."""
    return "-on-".join([name, *(Path(preset).stem for preset in on)])


def parse_on(text: str | Sequence[str] | None) -> tuple[str, ...]:
    """What `--on` names: presets and parameter files, with commas between them."""
    if text is None:
        return ()
    given = [text] if isinstance(text, str) else list(text)
    return tuple(part.strip() for item in given for part in item.split(",") if part.strip())


@cache
def load(name: str, on: tuple[str, ...] = (), folder: Path = files.STUDIES) -> tuple[Study, ...]:
    """A study, or the studies of a collection, with all runs checked.

    Raises:
        UserError: everything that is wrong, of all arms at once.
    """
    found = files.read(name, folder)
    if isinstance(found, Collection):
        inner = [files.read(part, folder) for part in found.studies]
        if nested := [n for n, f in zip(found.studies, inner, strict=True) if _collects(f)]:
            raise UserError(f"{Path(folder) / name}.yaml: studies: {nested[0]} is a collection.")
        return tuple(study for part in found.studies for study in load(part, on, folder))
    draws, seeds = found.draws, found.seeds
    if files.PHANTOMS in on:
        draws, seeds = found.phantoms.draws or draws[:1], found.phantoms.seeds or seeds[:2]
    runs, problems = [], []
    folder_name = folder_of(name, on)
    for arm in found.arms:
        predicted = files.predictions_of(found, arm, on)
        for draw, seed, fold in _places(draws, seeds, files.folds_of(found, on), predicted):
            try:
                params = files.params_of(name, found, arm, draw, seed, on, folder, fold)
            except UserError as error:
                problems += error.problems
                continue
            place = searcher = None
            if predicted is not None:
                names = {"study": folder_name, "draw": draw, "seed": seed, "fold": fold}
                place = Path(predicted.format(**names))
            elif params.search.trials:
                searcher = seeds[0]
            runs.append(Run(folder_name, arm, draw, seed, params, searcher, place, fold))
    # an arm's runs differ in no parameter that matters here
    firsts = {run.arm: run for run in reversed(runs)}.values()
    where = f"{Path(folder) / name}.yaml: folds"
    problems += [f"{where}: {text}" for run in firsts if (text := _undealt(run.params))]
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    return (Study(name, on, found, tuple(runs)),)


def _places(
    draws: Sequence[int], seeds: Sequence[int], folds: int | None, predicted: str | None
) -> list[tuple[int, int, int | None]]:
    """Draws, seeds and folds of an arm's runs.

    Predictions whose folder names no draw or seed are of the first; of folds they are of all, since
    each has other cases to score.
    """
    if predicted is not None:
        draws = draws if "{draw" in predicted else draws[:1]
        seeds = seeds if "{seed" in predicted else seeds[:1]
    numbers = [None] if folds is None else range(folds)
    return [(draw, seed, fold) for draw in draws for seed in seeds for fold in numbers]


def _undealt(params: Params) -> str | None:
    """Why a data set's cases can't be dealt into folds; None where they can, or aren't there yet.

    Phantoms have test cases of their own too, which no literature knows.
    """
    folds, data = params.split.folds, params.dataset
    if folds is None:
        return None
    entry = datasets.get(data)
    cases = list(entry.list_cases(data).cases)
    named = entry.canonical(data).test
    fixed = [case for case in cases or data.cases or named if case in named]
    if fixed and data.name != Phantom.name:
        return (
            f"{data.name} has test cases of its own ({few(fixed)}), which folds would learn from; "
            "name the other cases in dataset.cases, or run a study without folds."
        )
    subjects = len(set(owners(params.split.group, cases).values()))
    if cases and folds > subjects:
        return f"{folds} asked for, {data.name} has {subjects} subjects; ask for fewer."
    return None


def _collects(file: StudyFile | Collection) -> bool:
    return isinstance(file, Collection)


def load_all(on: tuple[str, ...] = (), folder: Path = files.STUDIES) -> tuple[Study, ...]:
    """Every study that can be run so and is no collection, in the order of their names."""
    found: list[Study] = []
    for name in files.names(folder):
        try:
            if not _collects(files.read(name, folder)):
                found += load(name, on, folder)
        except UserError:
            continue  # said when this study is asked for
    return tuple(found)


def find(text: str, on: tuple[str, ...] = (), folder: Path = files.STUDIES) -> Run:
    """The run that a text such as table10/rank-4/draw-1-seed-2 names.

    Raises:
        UserError: it names none.
    """
    match = RUN.match(text)
    if match is None:
        raise UserError(
            f"--study {text}: expected STUDY/ARM/draw-D-seed-S, with -fold-F in a study over folds."
        )
    name = match["study"]
    studies = load(name, on, folder)
    fold = None if match["fold"] is None else int(match["fold"])
    wanted = (match["arm"], int(match["draw"]), int(match["seed"]), fold)
    for run in (run for study in studies for run in study.runs):
        if (run.arm, run.draw, run.seed, run.fold) == wanted:
            return run
    raise UserError(f"--study {text}: {name} has no such run; `hsam study {name}` lists them.")


def doers(runs: Iterable[Run]) -> dict[str, Run]:
    """The run that does each work: the first, in the order given."""
    found: dict[str, Run] = {}
    for run in runs:
        found.setdefault(run.work, run)
    return found
