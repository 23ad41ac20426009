"""Reads what a report shows from the stages' files, and checks that they belong together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from pipeline.core import cost, files, run_folder
from pipeline.core.cost import Cost
from pipeline.core.errors import UserError
from pipeline.core.params.load import read_yaml
from pipeline.scoring.metrics_file import read_metrics
from pipeline.scoring.scores import SCORES
from pipeline.scoring.tables import (
    ORGANS,
    OVERALL,
    PREDICTED_DICE,
    REVIEW,
    STAGES,
    case_schema,
    read_table,
)
from pipeline.scoring.uncertainty import TWO_STAGES
from pipeline.shards.manifest import Manifest, read_manifest
from pipeline.shards.roles import SplitFile, read_split

# columns of numbers that the report reads from the stages' CSV files
HISTORY = (
    *("epoch", "iteration", "learning_rate", "lambda"),
    *("train_loss", "train_loss_coarse", "train_loss_fine", "validation_dice"),
)
TRIALS = ("number", "value")
IMPORTANCE = ("key", "importance")


@dataclass(frozen=True)
class ReportFolders:
    """The published folders of the stages before the report.

    Attributes:
        prepare, split, evaluate: of these stages.
        search: of the search; unused where there was none: the model was imported, or trained
            with the parameters as they are.
        train: of the train stage, or the outputs of an import.
    """

    prepare: Path
    split: Path
    search: Path
    train: Path
    evaluate: Path

    @classmethod
    def find(cls, results: Path, model: Path | None = None) -> "ReportFolders":
        """The folders below `results`, or of another run.

        Args:
            results: the stages' published outputs.
            model: folder of another run's model. If it lies in a results folder that has an
                evaluation of its own, that folder takes the place of `results`.
        """
        if model is not None and (model.parent / "evaluate" / "metrics.json").is_file():
            results = model.parent
        return cls(
            prepare=results / "prepare",
            split=results / "split",
            search=results / "search",
            train=results / "train" if model is None else model,
            evaluate=results / "evaluate",
        )

    def stages(self) -> dict[str, Path]:
        """Stage to folder, in the order of the data flow."""
        stages = dict(self.__dict__)
        trained = run_folder.read_provenance(self.train)
        searched = "search" in trained.get("inputs", {}) or self.search.exists()
        if _is_imported(trained) or not searched:
            del stages["search"]
        return stages

    def files(self) -> dict[str, Path]:
        """Name to path of every file that is read, except shards and predictions."""
        named = {
            "manifest": self.prepare / "manifest.parquet",
            "split": self.split / "split.parquet",
            "history": self.train / "history.csv",
            **{name: self.train / name for name in run_folder.MODEL_FILES},
            "metrics": self.evaluate / "metrics.json",
            "cases": self.evaluate / "cases.parquet",
            "organs": self.evaluate / "organs.parquet",
            "stages": self.evaluate / "stages.parquet",
            "review": self.evaluate / "review.parquet",
        }
        if "search" in self.stages():
            named["trials"] = self.search / "trials.csv"
            named["best"] = self.search / "best.yaml"
            if (found := self.search / "importance.csv").is_file():  # version 0.1.0 had none
                named["importance"] = found
        for stage, folder in self.stages().items():
            if (found := folder / cost.NAME).is_file():  # nor one of what a stage cost
                named[f"{stage} cost"] = found
        if (found := self.evaluate / "predicted_dice.parquet").is_file():  # nor this table
            named["predicted_dice"] = found
        for stage, folder in self.stages().items():
            named[f"{stage} provenance"] = folder / run_folder.PROVENANCE
        return named

    def predictions(self) -> dict[str, Path]:
        """Case to the NIfTI file of its prediction."""
        paths = sorted((self.evaluate / "predictions").glob("*.nii.gz"))
        return {path.name.removesuffix(".nii.gz"): path for path in paths}

    def label_maps(self, case: str) -> dict[str, Path]:
        """ "prediction" and, where both stages' were kept, "coarse" and "fine" to the NIfTI file.

        Raises:
            UserError: the prediction is missing.
        """
        name = f"{case}.nii.gz"
        maps = {"prediction": self.evaluate / "predictions" / name}
        if not maps["prediction"].is_file():
            raise UserError(
                f"{maps['prediction']}: there is no such file; run the evaluate stage again."
            )
        stages = {stage: self.evaluate / "stages" / stage / name for stage in TWO_STAGES}
        return maps | (stages if all(path.is_file() for path in stages.values()) else {})

    def hashes(self) -> dict[str, str]:
        """Name to SHA-256 of every input. Shards are covered by the manifest, which holds theirs.

        Raises:
            UserError: files are missing; lists all of them.
        """
        named = self.files()
        missing = [path for path in named.values() if not path.is_file()]
        if missing:
            raise UserError(
                f"{path}: there is no such file; run the {path.parent.name} stage first."
                for path in missing
            )
        for case in self.predictions():
            named |= {f"{name} {case}": path for name, path in self.label_maps(case).items()}
        return {name: files.sha256(path) for name, path in named.items()}


@dataclass(frozen=True)
class ReportInputs:
    """The content of the files.

    Attributes:
        manifest, split: of prepare and split.
        scores: metrics.json of evaluate.
        cases, organs, stages, review: evaluate's tables of these names; the last two are empty for
            a model of one stage.
        history: one row an epoch; none for an imported model.
        model: model.json.
        trials: one row a trial; empty when there was no search.
        best: the overlay of the best trial; empty when there was no search.
        importances: key of `train` to the share of the spread in Dice that it explains, largest
            first; empty where it isn't known.
        provenance: stage to its provenance.json.
        costs: stage to what it cost, where that is recorded; trials say it for the search.
        predicted_dice: evaluate's table of this name; empty where there is none or it can't say.
    """

    manifest: Manifest
    split: SplitFile
    scores: dict[str, Any]
    cases: pd.DataFrame
    organs: pd.DataFrame
    stages: pd.DataFrame
    review: pd.DataFrame
    history: pd.DataFrame
    model: dict[str, Any]
    trials: pd.DataFrame
    best: dict[str, Any]
    importances: dict[str, float]
    provenance: dict[str, dict[str, Any]]
    costs: dict[str, Cost]
    predicted_dice: pd.DataFrame

    @property
    def tested(self) -> list[str]:
        """The test cases."""
        return list(self.split.cases["test"])

    @property
    def other_split(self) -> bool:
        """Whether the model was trained on another split than that of the test cases."""
        used = self.provenance["train"].get("inputs", {}).get("split")
        return not self.imported and used != self.split.hash

    @property
    def imported(self) -> bool:
        """Whether the model was brought here, so that nothing is known of its training."""
        return _is_imported(self.provenance["train"])

    @property
    def origin(self) -> str:
        """What a model is that was brought here, for a sentence."""
        pulled = self.provenance["train"].get("stage") == run_folder.PULL
        return "a model trained elsewhere" if pulled else "a published checkpoint"


def read_inputs(folders: ReportFolders) -> ReportInputs:
    """Read every file.

    Raises:
        UserError: damaged files, files of runs that don't belong together, or tables without a
            column.
    """
    named, searched = folders.files(), "search" in folders.stages()
    inputs = ReportInputs(
        manifest=read_manifest(named["manifest"]),
        split=read_split(named["split"]),
        scores=read_metrics(named["metrics"], evaluation=True),
        cases=read_table(named["cases"], case_schema()),
        organs=read_table(named["organs"], ORGANS),
        stages=read_table(named["stages"], STAGES),
        review=read_table(named["review"], REVIEW),
        history=_read(partial(_numbers, HISTORY), named["history"]),
        model=_read(_model, named[run_folder.MODEL_FILES[0]]),
        trials=_read(partial(_numbers, TRIALS), named["trials"]) if searched else pd.DataFrame(),
        best=read_yaml(named["best"]) if searched else {},
        importances=_read(_importances, named["importance"]) if "importance" in named else {},
        provenance={
            stage: _read(_provenance, folder / run_folder.PROVENANCE)
            for stage, folder in folders.stages().items()
        },
        costs={
            stage: _read(_cost, named[f"{stage} cost"])
            for stage in folders.stages()
            if f"{stage} cost" in named
        },
        predicted_dice=read_table(named["predicted_dice"], PREDICTED_DICE)
        if "predicted_dice" in named
        else pd.DataFrame(columns=PREDICTED_DICE.names),
    )
    _check(folders, inputs)
    return inputs


def _numbers(columns: Sequence[str], path: Path) -> pd.DataFrame:
    """A CSV file; ValueError where it lacks columns, or numbers in them."""
    table = pd.read_csv(path)
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"no column {', '.join(missing)}")
    if other := [name for name in columns if len(table) and not is_numeric_dtype(table[name])]:
        raise ValueError(f"column {other[0]}: expected numbers")
    return table


def _importances(path: Path) -> dict[str, float]:
    table = pd.read_csv(path)
    if missing := [name for name in IMPORTANCE if name not in table]:
        raise ValueError(f"no column {', '.join(missing)}")
    return dict(zip(table["key"], table["importance"].astype(float), strict=True))


def _model(path: Path) -> dict[str, Any]:
    """model.json; ValueError where what the report says of the model isn't there."""
    record = _mapping(files.read_json(path))
    config = _mapping(record.get("config"), "config")
    if not isinstance(config.get("model"), str) or not isinstance(config.get("image_size"), int):
        raise ValueError("config: expected model and image_size")
    if not isinstance(record.get("trainable_parameters"), int):
        raise ValueError("expected trainable_parameters, a number")
    return record


def _provenance(path: Path) -> dict[str, Any]:
    """provenance.json; ValueError where its parameters, inputs or versions are no mappings."""
    record = _mapping(files.read_json(path))
    for name in ("inputs", "params", "versions"):
        _mapping(record.get(name, {}), name)
    return record


def _cost(path: Path) -> Cost:
    """cost.json; ValueError where time or device isn't there."""
    return Cost.parse(files.read_json(path))


def _mapping(value: Any, name: str = "content") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a mapping, found {type(value).__name__}")
    return value


def _is_imported(provenance: Mapping[str, Any]) -> bool:
    return provenance.get("stage") in run_folder.BROUGHT


def _read(reader: Callable[[Path], Any], path: Path) -> Any:
    """What `reader` makes of a file; a file that it can't read is named as damaged."""
    try:
        return reader(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: damaged ({reason}); run the {path.parent.name} stage again."
        ) from None


def _check(folders: ReportFolders, inputs: ReportInputs) -> None:
    """Refuse scores that were made from other files than those there.

    Raises:
        UserError: lists every problem.
    """
    problems = _gaps(folders, inputs)
    hashes = {name: files.sha256(path) for name, path in folders.files().items()}
    for stage, name, current in (
        ("evaluate", "manifest", hashes["manifest"]),
        ("evaluate", "split", inputs.split.hash),
        # two trainings of one architecture differ in their weights alone
        *(("evaluate", name, hashes[name]) for name in run_folder.MODEL_FILES),
        ("split", "manifest", hashes["manifest"]),
        ("search", "split", inputs.split.hash),
        ("train", "search", hashes.get("best")),
    ):
        recorded = inputs.provenance.get(stage, {}).get("inputs", {}).get(name)
        unrecorded = stage != "evaluate" and recorded is None
        if not unrecorded and recorded != current:
            problems.append(
                f"{getattr(folders, stage)}: was made from another {name} "
                f"({_short(recorded)}) than the one there now ({_short(current)}); "
                f"run the {stage} stage again."
            )
    if problems:
        raise UserError(problems)


def _gaps(folders: ReportFolders, inputs: ReportInputs) -> list[str]:
    """A sentence for each table without the rows that the report shows."""
    organs, named = inputs.manifest.class_names, folders.files()
    tested = pd.MultiIndex.from_product([inputs.split.cases["test"], organs])
    every = pd.MultiIndex.from_product([[inputs.scores["convention"]], [*organs, OVERALL], SCORES])
    wanted = [
        ("cases", inputs.cases, ["case", "organ"], tested),
        ("organs", inputs.organs, ["convention", "organ", "score"], every),
    ]
    if stages := inputs.scores.get("stages"):
        by_stage = pd.MultiIndex.from_product([stages, *every.levels])
        keys = ["stage", "convention", "organ", "score"]
        wanted.append(("stages", inputs.stages, keys, by_stage))
    gaps = []
    for name, table, keys, rows in wanted:
        if missing := rows.difference(pd.MultiIndex.from_frame(table[keys])).tolist():
            gaps.append((name, f"no row of {', '.join(missing[0])}"))
    if inputs.history.empty and not inputs.imported:
        gaps.append(("history", "no epoch"))
    return [
        f"{named[name]}: damaged ({what}); run the {named[name].parent.name} stage again."
        for name, what in gaps
    ]


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
