"""Stage evaluate: predicts the test cases and scores them organ by organ.

Inputs: shards and manifest (prepare), the split, model.json and model.safetensors (train).
Outputs: metrics.json (means), headline.json (the few of them for `dvc metrics`), tables as CSV and
parquet (cases, organs, stages, review, audit, predicted_dice), calibration.json (from doubt to a
predicted Dice), cost.json (time, device, memory), predictions/<case>.nii.gz and
stages/<stage>/<case>.nii.gz on the grid of the source, provenance.json. Finished cases are kept in
the run folder: an interrupted evaluation goes on there.
Units and definitions: docs/evaluation.md.
"""

import csv
import io
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsam.backbones import HUGGING_FACE
from pipeline.core import files, gpu, run_folder, sources, weight_files
from pipeline.core.console import say, steps
from pipeline.core.cost import Cost
from pipeline.core.errors import UserError, together
from pipeline.core.params.blocks import Evaluate, Params, Train, stage_params
from pipeline.imaging import volumes
from pipeline.imaging.channels import recorded
from pipeline.imaging.geometry import recorded_preparation, restore_labels, source_voxel
from pipeline.inference import records, usual
from pipeline.inference.unlike import Unlike, compare
from pipeline.scoring import audit, calibration, dice, tables
from pipeline.scoring.conventions import STRICT, apply_convention
from pipeline.scoring.measures import Measures, measure_organs
from pipeline.scoring.metrics_file import HEADLINE, METRICS, headline
from pipeline.scoring.predicted_dice import FEWEST, Pair
from pipeline.scoring.review import (
    MOST,
    Pairs,
    in_order,
    quality,
    review_rows,
    row_errors,
    sentence,
)
from pipeline.scoring.tables import Measured
from pipeline.scoring.uncertainty import TWO_STAGES, ExpectedError, Signs, Uncertainty
from pipeline.shards.case import ShardReader
from pipeline.shards.manifest import Manifest, ManifestRow, read_manifest
from pipeline.shards.roles import SplitFile, check_slices, read_split

if TYPE_CHECKING:
    from hsam.model import SegmentationModel
    from pipeline.inference.trained import Ready

FINISHED = "cases"  # folders of finished cases, one a precision
HISTORY = "history.csv"  # beside a trained model
MEASURES, REVIEW_ROWS, SIGNS = "measures.json", "review.json", "signs.json"  # of a finished case
SECONDS = "seconds.json"  # of a finished case too: wall time
UNLIKE = "unlike_training.json"  # of a finished case too
TOLD = 3  # warnings of cases in the terminal


def run(
    params: Params,
    prepared: Path,
    split: Path,
    model: Path,
    out: Path,
    runs: Path,
    *,
    device: gpu.Device,
) -> None:
    """Predict and score the test cases unless it was done before; then publish to `out`.

    A test case is scored as a whole volume, at the resolution of its shard.

    Args:
        params: all parameters; `evaluate` is read, and `train.sam_checkpoint` to find the file
            that a model with a frozen encoder was trained on.
        prepared, split: published folders of prepare and split.
        model: published folder of train, or a run folder of a training or an import.
        out: folder to publish to.
        runs: folder of the run folders.
        device: where to predict; leased only if something is left to do.

    Raises:
        UserError: inputs that are missing or don't belong together, or no test case.
    """
    manifest = read_manifest(prepared / "manifest.parquet")
    roles = read_split(split / "split.parquet")
    cases = _test_cases(manifest, roles, split)
    model = records.model_folder(model)
    _check_data(model, manifest)
    used = run_folder.read_provenance(model).get("inputs", {}).get("split", roles.hash)
    if used != roles.hash:
        say(f"warning: {model}: was trained on another split: it may have learned from test cases")
    inputs = {
        "manifest": files.sha256(prepared / "manifest.parquet"),
        "split": roles.hash,
        **{name: files.sha256(model / name) for name in run_folder.MODEL_FILES},
    }
    snapshots = _snapshots(model) if params.evaluate.audit else {}
    if snapshots:
        weights = {
            epochs: files.sha256(p / run_folder.MODEL_FILES[1]) for epochs, p in snapshots.items()
        }
        inputs["snapshots"] = files.digest(weights)
        inputs["history"] = files.sha256(model / HISTORY)
    key = stage_params(params, "evaluate")
    record = records.read_record(model)
    config = record["config"]
    choice = sources.model(config["model"], config.get("backbone"), config.get("hugging_face"))
    with run_folder.open_run(runs, manifest.name, "evaluate", key, inputs, choice) as work:
        if work.is_done():
            say(f"evaluate: already done in {work.path}")
        else:
            settled = gpu.settled(device)
            # imports PyTorch, which takes longer than finding that all is done
            from pipeline.inference.trained import model_precision

            precision = model_precision(record, settled)
            # what a GPU and a CPU have predicted isn't mixed
            finished = work.path / f"{FINISHED}-{precision.encoder}"
            shards, known_slices = prepared / "shards", _usual(model, record)
            scoring = Scoring(params.evaluate, manifest, shards, finished, known_slices)

            @cache
            def load() -> "Ready":
                return _load(model, params.train, config.get("backbone"), settled)

            _score_missing(scoring, "evaluate", cases, load, settled)
            # fewer validation cases calibrate nothing
            known = roles.cases["validation"]
            known = known if len(known) >= FEWEST else []
            others = replace(scoring, finished=finished.with_name(f"{finished.name}-validation"))
            _score_missing(others, "calibrate", known, load, settled)
            learned = [pair for case in known for pair in others.pairs(case)]
            about: dict[str, Any] = {"split": roles.hash}
            if (before := records.pretraining(record, manifest.name)) is not None:
                about["pretraining"] = before
            kept: list[dict[str, Any]] = []
            if snapshots:
                test = {
                    epochs: _test_dice(scoring, folder, params.train, cases, settled)
                    for epochs, folder in snapshots.items()
                }
                kept = audit.rows(test, _history(model))
                about["audit"] = audit.choices(kept)
                say(f"evaluate: {audit.sentence(about['audit'])}")
            _write_outputs(
                work.out, scoring, cases, about, learned, inputs[run_folder.MODEL_FILES[1]]
            )
            tables.write_table(work.out, "audit", kept, audit.SCHEMA)
            seconds = _seconds(work.path.glob(f"{FINISHED}-*/[!.]*/{SECONDS}"))
            Cost.of(seconds, settled).write(work.out)
            work.finish(inference=precision.record())
            for folder in work.path.glob(f"{FINISHED}-*"):
                shutil.rmtree(folder)
        work.publish(out)


def _score_missing(
    scoring: "Scoring",
    title: str,
    cases: Sequence[str],
    load: Callable[[], "Ready"],
    device: str,
) -> None:
    """Predict and measure all stages of the cases that aren't finished; progress has the title."""
    if pending := [case for case in cases if not scoring.is_done(case)]:
        network = load()
        stages = _stages(network.model, scoring.settings.stage)
        with steps(title, len(cases), len(cases) - len(pending)) as bar:
            for case in pending:
                bar.advance(_note(case, scoring.score(case, network, stages, device)))


def _seconds(recorded: Iterable[Path]) -> float:
    """What all cases took, whichever calls predicted and scored them."""
    return math.fsum(float(files.read_json(path)) for path in recorded)


def _snapshots(model: Path) -> dict[int, Path]:
    """Those of `records.snapshots`; UserError where none was kept."""
    if not (found := records.snapshots(model)):
        raise UserError(
            f"{model}: evaluate.audit scores models kept during the training, of which there are "
            "none; train with train.snapshots, or set it to false."
        )
    return found


def _history(model: Path) -> list[dict[str, str]]:
    """The rows of history.csv beside a model."""
    return list(csv.DictReader(io.StringIO(files.read_text(model / HISTORY))))


def _test_dice(
    scoring: "Scoring", folder: Path, train: Train, cases: Sequence[str], device: str
) -> float:
    """Mean Dice of a snapshot over the test cases; those that were scored before stay scored."""
    finished = scoring.finished.with_name(f"{scoring.finished.name}-{folder.name}")
    own = replace(scoring, finished=finished)
    stage, title = own.settings.stage, f"audit {folder.name}"
    if pending := [case for case in cases if not own.is_done(case)]:
        backbone = records.read_record(folder)["config"].get("backbone")
        network = _load(folder, train, backbone, device)
        with steps(title, len(cases), len(cases) - len(pending)) as bar:
            for case in pending:
                bar.advance(_note(case, own.score(case, network, (stage,), device)))
    measured = {case: own.measured(case)[stage] for case in cases}
    rows = tables.organ_rows(measured, own.manifest.class_names)
    return tables.overall(rows, own.settings.convention)["mean_dice"]


@dataclass(frozen=True)
class Scoring:
    """Predicts and measures cases, and keeps each finished one in a folder.

    Attributes:
        settings: the `evaluate` block.
        manifest: of the data set.
        shards: folder of its shards.
        finished: folder of the finished cases.
        usual: what the model's training slices look like, from `inference.usual`; None: not known.
    """

    settings: Evaluate
    manifest: Manifest
    shards: Path
    finished: Path
    usual: Mapping[str, Any] | None = None

    def is_done(self, case: str) -> bool:
        """Whether the case was predicted and measured before."""
        return (self.finished / case).is_dir()

    def score(
        self, case: str, network: "Ready", stages: Sequence[str], device: str
    ) -> dict[str, Measures]:
        """Predict and measure one case; its folder appears when everything is written.

        Args:
            case: its id.
            network: the model.
            stages: what to predict and measure.
            device: "cpu" or "cuda".

        Returns:
            Organ to what was measured, of the stage that is scored.

        Raises:
            UserError: the shard isn't the one in the manifest.
        """
        started = time.monotonic()
        row = self.manifest.case(case)
        images, truth = self._read(row)
        names = self.manifest.class_names
        labels, unsure = self._predict(network, row, images, stages, device)
        organs = {name: ((label,), (label,)) for label, name in enumerate(names, 1)}
        measured = {
            stage: measure_organs(truth, prediction, organs, row.spacing_mm)
            for stage, prediction in labels.items()
        }
        self.finished.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{case}-", dir=self.finished))
        for stage, prediction in labels.items():
            source = restore_labels(prediction, row.geometry, self.manifest.axes)
            volumes.write_label_nifti(folder / f"{stage}.nii.gz", source, row.geometry)
        stored = {stage: tables.to_json(by_organ) for stage, by_organ in measured.items()}
        files.write_json(folder / MEASURES, stored)
        signs = zip(names, unsure.doubt.signs(), strict=True)
        told = {name: asdict(of) for name, of in signs if of is not None}
        files.write_json(folder / SIGNS, told)
        chosen = labels[self.settings.stage]
        found = Unlike([], [], {})
        if self.usual is not None:
            slices = zip(images, chosen, strict=True)
            found = compare(
                self.usual,
                names,
                slices,
                row.spacing_mm,
                self.manifest.axes,
                list(recorded(self.manifest.preparation)),
            )
        files.write_json(folder / UNLIKE, asdict(found))
        two = None
        if set(TWO_STAGES) <= set(stages):
            two = Pairs.of(labels["coarse"], labels["fine"], len(names))
        scored = Pairs.of(truth, chosen, len(names))
        stored_review = self._review(row, unsure.expected, two, scored)
        files.write_json(folder / REVIEW_ROWS, stored_review)
        files.write_json(folder / SECONDS, time.monotonic() - started)
        os.rename(folder, self.finished / case)
        return measured[self.settings.stage]

    def measured(self, case: str) -> dict[str, dict[str, Measures]]:
        """Stage to organ to what was measured in a finished case."""
        stored = files.read_json(self.finished / case / MEASURES)
        return {stage: tables.from_json(organs) for stage, organs in stored.items()}

    def pairs(self, case: str) -> list[Pair]:
        """The organs that were predicted in a finished case, with their Dice."""
        measured = self.measured(case)[self.settings.stage]
        strange = self.unlike(case).organs
        dice_of = {
            organ: apply_convention(scores, STRICT)["dice"] for organ, scores in measured.items()
        }
        return [
            Pair(case, organ, Signs(**of), dice_of[organ], organ in strange)
            for organ, of in files.read_json(self.finished / case / SIGNS).items()
        ]

    def unlike(self, case: str) -> Unlike:
        """What is unlike training in a finished case and its labels."""
        return Unlike(**files.read_json(self.finished / case / UNLIKE))

    def review(self, case: str) -> dict[str, Any]:
        """Of a finished case: `rows` of the review list, and what its quality is told from
        (`pipeline.scoring.review.quality`), each a list."""
        found: dict[str, Any] = files.read_json(self.finished / case / REVIEW_ROWS)
        return found

    def _review(
        self, row: ManifestRow, expected: ExpectedError, two: Pairs | None, scored: Pairs
    ) -> dict[str, Any]:
        """What `review` returns, of one case.

        Args:
            row: of the case.
            expected: what is expected to be wrong in the labels.
            two: the two stages' masks; None: a model of one.
            scored: the masks of truth and labels.
        """
        rows = review_rows(row.case, expected, self.manifest.class_names, two, scored)
        for found in rows:
            place = (found["slice"], found["row"], found["column"])
            voxel = source_voxel(row.geometry, self.manifest.axes, place, row.shape[1:])
            found["voxel"] = " ".join(str(index) for index in voxel)
        error = scored.differing.astype(np.float64) * math.prod(expected.pixel_mm)
        seen = (scored.sizes > 0) | (expected.mm2 > 0)
        return {
            "rows": rows,
            "expected_mm2": expected.mm2[seen].tolist(),
            "error_mm2": error[seen].tolist(),
            "every_mm2": row_errors(expected.mm2, error),
            "ideal_mm2": row_errors(error, error)[:MOST],
        }

    def _predict(
        self,
        network: "Ready",
        row: ManifestRow,
        images: Any,
        stages: Sequence[str],
        device: str,
    ) -> tuple[dict[str, NDArray[np.uint8]], Uncertainty]:
        """Stage to labels (slices, rows, columns); how unsure those of the scored stage are."""
        from pipeline.inference.volume import STEPS, predict_batches

        chosen = self.settings.stage
        labels = {stage: np.empty(row.shape, np.uint8) for stage in stages}
        pixel = (row.spacing_mm[1], row.spacing_mm[2])
        unsure = Uncertainty.of(images.shape[0], len(self.manifest.class_names), pixel)
        for batch in predict_batches(
            network.model,
            images,
            stages,
            batch_size=self.settings.batch_size,
            device=device,
            resizing=network.resizing,
            probabilities=chosen,
        ):
            batch.put(labels)
            shares = batch.probabilities
            assert shares is not None, "predict_batches was asked for them"
            unsure.add(batch.first, batch.labels, chosen, shares, STEPS)
        return labels, unsure

    def _read(self, row: ManifestRow) -> tuple[Any, Any]:
        path = self.shards / row.shard
        if not path.is_file() or files.sha256(path) != row.shard_sha256:
            raise UserError(
                f"{path}: this isn't the shard that the manifest names; run the prepare stage."
            )
        return ShardReader(path).read_volume()


def _test_cases(manifest: Manifest, split: SplitFile, folder: Path) -> list[str]:
    """The cases to score; a split of other slices than the manifest's is refused."""
    check_slices(split, manifest.name, {row.case: row.slices for row in manifest}, folder)
    if not split.cases["test"]:
        raise UserError(f"{folder}: the split has no test slices; name cases in split.test.")
    return split.cases["test"]


def _usual(folder: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a model's record keeps of its training slices; None where it keeps nothing.

    Raises:
        UserError: it is damaged.
    """
    try:
        return usual.recorded(record)
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{folder / run_folder.MODEL_FILES[0]}: usual: expected ranges of the training slices, "
            "found something else; train the model again."
        ) from None


def _check_data(folder: Path, manifest: Manifest) -> None:
    """Refuse data that was prepared differently from the data that the model was trained on."""
    record = records.read_record(folder)
    axes = (record.get("preparation") or {}).get("axes", manifest.axes)
    if axes != manifest.axes:
        raise UserError(
            f"{folder}: the model was trained on slices with the axes {axes}, the data has "
            f"{manifest.axes}; set prepare.axes to {axes} and run prepare and split again."
        )
    problems = [
        f"{folder}: the model was trained with {what} {record.get(key)}, the data has {found}; "
        "evaluate it on data like it was trained on, or train again."
        for key, what, found in (
            ("class_names", "the organs", manifest.class_names),
            ("intensity", "the intensity rule", manifest.intensity),
            ("preparation", "the preparation", recorded_preparation(manifest.preparation)),
        )
        if record.get(key) != found
    ]
    if problems:
        raise UserError(problems)


def _load(folder: Path, train: Train, backbone: str | None, device: str) -> "Ready":
    """The trained model, with the frozen encoder's weights as `train` or the record names them.

    `backbone` is that of the model.
    """
    from pipeline.inference.trained import load_for_inference

    if backbone is not None and backbone.startswith(HUGGING_FACE):
        named = train.backbone if train.backbone.startswith(HUGGING_FACE) else None
        return load_for_inference(folder, named, device, "train.backbone")
    # a preset's path may not exist here, while the model has recorded its own file
    given = train.sam_checkpoint
    named = given if given not in (None, weight_files.AUTO) and Path(given).is_file() else None
    return load_for_inference(folder, named, device, "train.sam_checkpoint")


def _stages(network: "SegmentationModel", wanted: str) -> tuple[str, ...]:
    """What to predict: both stages and their mean, or the scored stage if the model has one.

    Raises:
        UserError: the model lacks the stage that is to be scored.
    """
    from pipeline.inference.volume import model_stages

    available = model_stages(network)
    if wanted not in available:
        raise UserError(
            f"evaluate.stage: this model has no {wanted} stage; set it to {' or '.join(available)}."
        )
    return available if set(TWO_STAGES) <= set(available) else (wanted,)


def _note(case: str, measured: dict[str, Measures]) -> str:
    """The case's mean Dice over the organs that it has, for the progress bar."""
    present = [measures for measures in measured.values() if measures.truth_voxels]
    # a missed organ counts 0 under every convention
    mean = dice.mean(apply_convention(measures, "strict")["dice"] for measures in present)
    return f"{case}: Dice {mean:.3f}" if present else f"{case}: no organ"


def _write_outputs(
    out: Path,
    scoring: Scoring,
    cases: Sequence[str],
    about: Mapping[str, Any],
    validation: Sequence[Pair],
    weights: str,
) -> None:
    """Write tables, metrics and label maps of finished cases, replacing all that is in `out`.

    Args:
        out: folder to write to.
        scoring: has the cases.
        cases: their ids.
        about: what metrics.json says besides the scores.
        validation: pairs to calibrate predicted Dice on, if there are enough.
        weights: SHA-256 of the model's.
    """
    shutil.rmtree(out)
    settings, organs = scoring.settings, scoring.manifest.class_names
    measured = {case: scoring.measured(case) for case in cases}
    scored = {case: by_stage[settings.stage] for case, by_stage in measured.items()}
    rows = tables.write_scores(out, scored, organs, settings.convention)
    metrics = tables.summary(rows, scored, settings.convention) | {
        "cases": len(cases),
        "stage": settings.stage,
        "convention": settings.convention,
        **about,
    }
    stage_rows = _stage_rows(measured, organs)
    tables.write_table(
        out, "stages", [row for rows in stage_rows.values() for row in rows], tables.STAGES
    )
    reviews = [scoring.review(case) for case in cases]
    review = in_order(row for found in reviews for row in found["rows"])
    tables.write_table(out, "review", review, tables.REVIEW)
    whole = {
        key: [area for found in reviews for area in found[key]]
        for key in ("expected_mm2", "error_mm2", "every_mm2", "ideal_mm2")
    }
    metrics["review"] = quality(
        review,
        np.array(whole["expected_mm2"]),
        np.array(whole["error_mm2"]),
        whole["every_mm2"],
        whole["ideal_mm2"],
    )
    say(f"evaluate: review list: {sentence(metrics['review'])}")
    tested = [pair for case in cases for pair in scoring.pairs(case)]
    known, found, metrics["predicted_dice"] = calibration.of_evaluation(validation, tested)
    say(f"evaluate: predicted Dice: {calibration.sentence(metrics['predicted_dice'])}")
    rows_said = tables.predicted_rows(tested, found)
    tables.write_table(out, "predicted_dice", rows_said, tables.PREDICTED_DICE)
    calibration.write(out / calibration.CALIBRATION, known, settings.stage, weights)
    if strange := {case: told for case in cases if (told := scoring.unlike(case).sentences)}:
        metrics["unlike_training"] = strange
        _tell_unlike(strange, len(cases))
    if stage_rows:
        metrics["stages"] = {
            stage: tables.overall(rows, settings.convention) for stage, rows in stage_rows.items()
        }
    files.write_json(out / METRICS, metrics)
    files.write_json(out / HEADLINE, headline(metrics))
    _copy_predictions(out, scoring, cases, list(stage_rows))


def _tell_unlike(strange: Mapping[str, Sequence[str]], cases: int) -> None:
    """How many test cases, or their labels, are unlike training, and the first sentences."""
    said = f"{len(strange)} of {cases} test cases, or their labels, are unlike training"
    say(f"evaluate: warning: {said}")
    told = together(strange)
    for text in told[:TOLD]:
        say(f"evaluate: warning: {text}")
    if len(told) > TOLD:
        say(f"evaluate: {len(told) - TOLD} more of these in {METRICS}, and in the report")


def _stage_rows(
    measured: Mapping[str, Mapping[str, Measured]], organs: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Stage to its rows of the table `stages`; empty for a model of one stage.

    Args:
        measured: case to stage to organ to what was measured.
        organs: in the order of the rows.
    """
    stages = ("mean", *TWO_STAGES)
    if not all(set(stages) <= set(by_stage) for by_stage in measured.values()):
        return {}
    rows = {}
    for stage in stages:
        of_stage = {case: by_stage[stage] for case, by_stage in measured.items()}
        rows[stage] = [{"stage": stage} | row for row in tables.organ_rows(of_stage, organs)]
    return rows


def _copy_predictions(
    out: Path, scoring: Scoring, cases: Sequence[str], stages: Sequence[str]
) -> None:
    """Copy the label maps of the scored stage, and of the two stages if the model has them."""
    targets: dict[Path, str] = {out / "predictions": scoring.settings.stage}
    targets |= {out / "stages" / stage: stage for stage in stages if stage in TWO_STAGES}
    # for a model of one stage too, since both workflow engines expect the folder
    (out / "stages").mkdir(parents=True)
    for folder, stage in targets.items():
        folder.mkdir(parents=True)
        for case in cases:
            source = scoring.finished / case / f"{stage}.nii.gz"
            shutil.copyfile(source, folder / f"{case}.nii.gz")
