"""What came out of a study's runs: scores of each case and organ, history, facts for a table's row.

A run counts as finished if its evaluation is of the run's own parameters, of the weights and of the
volumes that are there now. All others are to do, and say why.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import files
from pipeline.core.cost import Cost
from pipeline.core.errors import UserError
from pipeline.core.params import search_space
from pipeline.core.params.dotted import flat
from pipeline.core.params.load import read_yaml
from pipeline.core.run_folder import MODEL_FILES, read_provenance
from pipeline.datasets import nnunet_export
from pipeline.inference.records import pretraining, read_record
from pipeline.scoring.pairs import find_predictions
from pipeline.scoring.predictions import digest_of
from pipeline.scoring.recount import under_every_convention
from pipeline.scoring.runs import CASES
from pipeline.scoring.scores import SCORES
from pipeline.scoring.tables import case_schema, pretraining_caution, read_table
from pipeline.shards.manifest import Manifest, read_manifest
from pipeline.shards.roles import SplitFile, read_split
from pipeline.studies import progress
from pipeline.studies.plan import Run, Study

MANIFEST, SPLIT, BEST = "manifest.parquet", "split.parquet", "best.yaml"
UNKNOWN = "unknown"  # a device that no cost.json names


@dataclass(frozen=True)
class Facts:
    """What a table's row says of a run besides its scores.

    Attributes:
        model, backbone: by name; a model without SAM's encoder has no backbone.
        side: of the slices that the model sees, pixels; None: another tool's affair, as are batch
            and stage.
        lora_rank: of the trained model, a search's choice included; None: it has no LoRA.
        batch: slices per optimizer step, over all devices and passes.
        stage: whose logits are scored: mean, coarse or fine.
        convention: under which the headline counts empty organs.
        split: hash of the split.
        train_slices, train_subjects: that were learned from.
        test_cases: that were scored.
        device: of the training: a GPU's name, "CPU" or "unknown"; None: of another tool.
        tuned: what a search chose, in words; None: there was none.
        caution: a sentence where the encoder may have seen test images before; None where not.
    """

    model: str
    backbone: str | None
    side: int | None
    lora_rank: int | None
    batch: int | None
    stage: str | None
    convention: str
    split: str
    train_slices: int
    train_subjects: int
    test_cases: int
    device: str | None
    caution: str | None
    tuned: str | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """A run with what came out of it.

    Attributes:
        run: the run.
        folders: of each stage's outputs.
        missing: why it is to do; None: it is finished.
        cases: `convention`, `case`, `organ` and every score, NaN where left out of the means; no
            row where it is to do.
        organs: in the order of the classes; none where it is to do.
        facts: None where it is to do.
    """

    run: Run
    folders: dict[str, Path]
    missing: str | None
    cases: pd.DataFrame
    organs: tuple[str, ...] = ()
    facts: Facts | None = None

    @property
    def done(self) -> bool:
        """Whether it is finished."""
        return self.missing is None

    @cached_property
    def history(self) -> pd.DataFrame:
        """The training's history.csv, one row an epoch; no row where there is none yet.

        Raises:
            UserError: the file is damaged.
        """
        path = self.folders["train"] / "history.csv"
        if not self.done or not path.is_file():
            return pd.DataFrame()
        try:
            return pd.read_csv(path)
        except ValueError as error:
            raise UserError(f"{path}: damaged ({error}); run the train stage again.") from None


def outcomes(studies: Iterable[Study], results: Path) -> list[Outcome]:
    """What came out of each run, in the order of the studies and of their runs.

    Args:
        studies: from `plan.load`.
        results: folder of the stages' outputs.

    Raises:
        UserError: a damaged file of a finished run.
    """
    shared = _Shared()
    return [_outcome(run, Path(results), shared) for study in studies for run in study.runs]


class _Shared:
    """Files that many runs share, read once."""

    def __init__(self) -> None:
        self._read: dict[Path, Any] = {}

    def manifest(self, folder: Path) -> tuple[Manifest, str]:
        """The manifest and the SHA-256 of its file."""
        path = folder / MANIFEST
        found: tuple[Manifest, str] = self._once(
            path, lambda: (read_manifest(path), files.sha256(path))
        )
        return found

    def diagonals(self, folder: Path) -> dict[str, tuple[float, float]]:
        """Case to the length of its volume's diagonal, edge to edge: voxels, mm."""
        found: dict[str, tuple[float, float]] = self._once(
            folder, lambda: _diagonals(self.manifest(folder)[0])
        )
        return found

    def split(self, folder: Path) -> SplitFile:
        """The split."""
        path = folder / SPLIT
        found: SplitFile = self._once(path, lambda: read_split(path))
        return found

    def _once(self, path: Path, read: Any) -> Any:
        if path not in self._read:
            self._read[path] = read()
        return self._read[path]


def _diagonals(manifest: Manifest) -> dict[str, tuple[float, float]]:
    """As the evaluation measures them: of the prepared volume."""
    found = {}
    for row in manifest:
        shape = np.asarray(row.shape, np.float64)
        lengths = (float(np.linalg.norm(shape)), float(np.linalg.norm(shape * row.spacing_mm)))
        found[row.case] = lengths
    return found


def _outcome(run: Run, results: Path, shared: _Shared) -> Outcome:
    folders = run.places(results)
    missing = _missing(run, folders, shared)
    if missing is not None:
        columns = ["convention", "case", "organ", *SCORES]
        return Outcome(run, folders, missing, pd.DataFrame(columns=columns))
    cases = read_table(folders["evaluate"] / CASES, case_schema())
    try:
        scores = under_every_convention(cases, shared.diagonals(folders["prepare"]))
    except KeyError as error:
        raise UserError(
            f"{folders['evaluate'] / CASES}: scores of {error}, a case that {folders['prepare']} "
            "doesn't have; evaluate the run again."
        ) from None
    organs = tuple(dict.fromkeys(cases["organ"]))
    facts = _facts(run, folders, shared.split(folders["split"]))
    return Outcome(run, folders, None, scores, organs, facts)


def _missing(run: Run, folders: dict[str, Path], shared: _Shared) -> str | None:
    """Why a run is to do; None: it is finished."""
    if run.predictions is not None and not run.predictions.is_dir():
        return f"there is no folder {run.predictions}"
    if (reason := progress.to_do(run, folders)) is not None:
        return reason
    if run.predictions is None and (reason := _untrained(run, folders)) is not None:
        return reason
    if not (folders["prepare"] / MANIFEST).is_file():
        return "its prepared volumes are gone"
    if not (folders["split"] / SPLIT).is_file():
        return "its split is gone"
    inputs = read_provenance(folders["evaluate"]).get("inputs", {})
    if run.predictions is not None:
        if inputs.get("predictions") != _predictions(run, folders, shared):
            return "its predictions are others than those that were scored"
    elif any(inputs.get(name) != files.sha256(folders["train"] / name) for name in MODEL_FILES):
        return "evaluated with other weights"
    if inputs.get("manifest") != shared.manifest(folders["prepare"])[1]:
        return "evaluated on other volumes"
    if inputs.get("split") != shared.split(folders["split"]).hash:
        return "evaluated on another split"
    return None


def _untrained(run: Run, folders: dict[str, Path]) -> str | None:
    """Why there is no model of what the search found, if there is a search; None: there is one."""
    if not all((folders["train"] / name).is_file() for name in MODEL_FILES):
        return "its weights are gone"
    if run.searcher is None:
        return None
    best = folders["search"] / BEST
    if not best.is_file():
        return "its search is gone"
    used = read_provenance(folders["train"]).get("inputs", {}).get("search")
    same = used == files.sha256(best)
    return None if same else "trained with what another search found, or with none"


def _predictions(run: Run, folders: dict[str, Path], shared: _Shared) -> str | None:
    """The hash of what there is to score now; None where a case has no prediction."""
    assert run.predictions is not None
    cases = shared.split(folders["split"]).cases["test"]
    try:
        return digest_of(run.predictions, find_predictions(run.predictions, cases))
    except UserError:
        return None


def _facts(run: Run, folders: dict[str, Path], split: SplitFile) -> Facts:
    if run.predictions is not None:
        return _facts_of_predictions(run, split)
    record = read_record(folders["train"])
    config, before = record["config"], pretraining(record, run.params.dataset.name)
    settings, train = run.params.evaluate, split.counts["train"]
    cost = Cost.read(folders["train"])
    return Facts(
        model=config["model"],
        backbone=config.get("backbone"),
        side=config["image_size"],
        lora_rank=config.get("lora_rank"),
        batch=run.params.train.batch_size,
        stage=settings.stage,
        convention=settings.convention,
        split=split.hash,
        train_slices=train["slices"],
        train_subjects=train["subjects"],
        test_cases=split.counts["test"]["subjects"],
        device=UNKNOWN if cost is None else cost.device,
        caution=pretraining_caution({"pretraining": before}),
        tuned=_tuned(run, folders),
    )


def _facts_of_predictions(run: Run, split: SplitFile) -> Facts:
    """What is known of another tool's labels: the cases, and what the split gave to learn from."""
    assert run.predictions is not None
    caution = None
    if "split" not in (nnunet_export.read_record(run.predictions) or {}):
        caution = f"{run.predictions} doesn't say which split it was learned from."
    train = split.counts["train"]
    return Facts(
        model="another tool",
        backbone=None,
        side=None,
        lora_rank=None,
        batch=None,
        stage=None,
        convention=run.params.evaluate.convention,
        split=split.hash,
        train_slices=train["slices"],
        train_subjects=train["subjects"],
        test_cases=split.counts["test"]["subjects"],
        device=None,
        caution=caution,
    )


def _tuned(run: Run, folders: dict[str, Path]) -> str | None:
    """What the search chose, as "learning_rate 0.001, lora_rank 8"."""
    if run.searcher is None:
        return None
    chosen = flat(read_yaml(folders["search"] / BEST).get("train", {}))
    return ", ".join(f"{key} {search_space.shown(value)}" for key, value in chosen.items())


def arms(found: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The outcomes of each arm, in the order given."""
    by_arm: dict[str, list[Outcome]] = {}
    for outcome in found:
        by_arm.setdefault(outcome.run.arm, []).append(outcome)
    return by_arm
