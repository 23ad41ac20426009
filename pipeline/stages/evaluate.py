"""Stage evaluate: the test cases, predicted and scored organ by organ.

Inputs: shards and manifest (prepare), the split, model.json and model.safetensors (train).
Outputs: metrics.json (means, for `dvc metrics`), tables as CSV and parquet (cases, organs, stages,
review), predictions/<case>.nii.gz and stages/<stage>/<case>.nii.gz on the grid of the source,
provenance.json. Finished cases lie in the run folder, where an interrupted evaluation goes on.
Units and definitions: docs/evaluation.md.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from hsam.model import SegmentationModel
from pipeline.core import files, run_folder, sources
from pipeline.core.console import say, steps
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Evaluate, Params, stage_params
from pipeline.imaging import volumes
from pipeline.imaging.geometry import restore_labels
from pipeline.inference import trained
from pipeline.inference.trained import MODEL_FILES
from pipeline.inference.volume import model_stages, predict_stages
from pipeline.scoring import dice, disagreement, tables
from pipeline.scoring.conventions import apply_convention
from pipeline.scoring.disagreement import TWO_STAGES
from pipeline.scoring.measures import Measures, measure_organs
from pipeline.shards.case import ShardReader
from pipeline.shards.manifest import Manifest, ManifestRow, read_manifest
from pipeline.shards.roles import SplitFile, check_slices, read_split

MEASURES, REVIEW_ROWS = "measures.json", "review.json"
STAGES = pa.schema([pa.field("stage", pa.string(), nullable=False), *tables.ORGANS])
REVIEW = pa.schema(
    [
        pa.field("case", pa.string(), nullable=False),
        pa.field("slice", pa.int64(), nullable=False),
        pa.field("organ", pa.string(), nullable=False),
        pa.field("disagreement", pa.float64(), nullable=False),
        pa.field("differing_mm2", pa.float64(), nullable=False),
        pa.field("dice", pa.float64()),
    ]
)


def run(
    params: Params,
    prepared: Path,
    split: Path,
    model: Path,
    out: Path,
    runs: Path,
    *,
    device: str,
) -> None:
    """Predict and score the test cases, or find it done; then publish to `out`.

    A test case is scored as a whole volume, at the resolution of its shard.

    Args:
        params: all parameters; `evaluate` is read, and `train.sam_checkpoint` to find the file
            that a model with a frozen encoder was trained on.
        prepared, split: published folders of prepare and split.
        model: that of train, or a run folder of a training or an import.
        out: folder to publish to.
        runs: folder of the run folders.
        device: "cpu" or "cuda".

    Raises:
        UserError: inputs that are missing or don't belong together, or no test case.
    """
    manifest = read_manifest(prepared / "manifest.parquet")
    roles = read_split(split / "split.parquet")
    cases = _test_cases(manifest, roles, split)
    model = trained.model_folder(model)
    _check_data(model, manifest)
    inputs = {
        "manifest": files.sha256(prepared / "manifest.parquet"),
        "split": roles.hash,
        **{name: files.sha256(model / name) for name in MODEL_FILES},
    }
    key = stage_params(params, "evaluate")
    config = trained.read_record(model)["config"]
    choice = sources.model(config["model"], config.get("backbone"))
    with run_folder.open_run(runs, manifest.name, "evaluate", key, inputs, choice) as work:
        if work.is_done():
            say(f"evaluate: already done in {work.path}")
        else:
            scoring = Scoring(params.evaluate, manifest, prepared / "shards", work.path / "cases")
            if pending := [case for case in cases if not scoring.is_done(case)]:
                network = _load(model, params.train.sam_checkpoint, device)
                stages = _stages(network, params.evaluate.stage, device)
                with steps("evaluate", len(cases), len(cases) - len(pending)) as bar:
                    for case in pending:
                        bar.advance(_note(case, scoring.score(case, network, stages, device)))
            _write_outputs(work.out, scoring, cases, roles.hash)
            work.finish()
            shutil.rmtree(scoring.finished)
        work.publish(out)


@dataclass(frozen=True)
class Scoring:
    """Predicts and measures cases; each finished one is a folder of its own.

    Attributes:
        settings: the `evaluate` block.
        manifest: of the data set.
        shards: folder of its shards.
        finished: folder of the finished cases.
    """

    settings: Evaluate
    manifest: Manifest
    shards: Path
    finished: Path

    def is_done(self, case: str) -> bool:
        """Whether the case was predicted and measured before."""
        return (self.finished / case).is_dir()

    def score(
        self, case: str, network: SegmentationModel, stages: Sequence[str], device: str
    ) -> dict[str, Measures]:
        """Predict and measure one case; its folder appears when all is done.

        Returns:
            Organ to what was measured of the stage that is scored.

        Raises:
            UserError: the shard isn't the one in the manifest.
        """
        row = self.manifest.case(case)
        images, truth = self._read(row)
        labels = predict_stages(
            network, images, stages, batch_size=self.settings.batch_size, device=device
        )
        names = self.manifest.class_names
        organs = {name: ((label,), (label,)) for label, name in enumerate(names, 1)}
        measured = {
            stage: measure_organs(truth, prediction, organs, row.spacing_mm)
            for stage, prediction in labels.items()
        }
        self.finished.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{case}-", dir=self.finished))
        for stage, prediction in labels.items():
            source = restore_labels(prediction, row.geometry)
            volumes.write_label_nifti(folder / f"{stage}.nii.gz", source, row.geometry)
        files.write_json(
            folder / MEASURES, {stage: tables.to_json(found) for stage, found in measured.items()}
        )
        if set(TWO_STAGES) <= set(stages):
            pair = labels["coarse"], labels["fine"]
            pixel = row.spacing_mm[1] * row.spacing_mm[2]
            scored = labels[self.settings.stage]
            rows = disagreement.rows_with_truth(case, pair, truth, scored, names, pixel)
            files.write_json(folder / REVIEW_ROWS, rows)
        os.rename(folder, self.finished / case)
        return measured[self.settings.stage]

    def measured(self, case: str) -> dict[str, dict[str, Measures]]:
        """Stage to organ to what was measured in a finished case."""
        stored = files.read_json(self.finished / case / MEASURES)
        return {stage: tables.from_json(organs) for stage, organs in stored.items()}

    def review(self, case: str) -> list[dict[str, Any]]:
        """Rows of the review list of a finished case; empty for a model of one stage."""
        path = self.finished / case / REVIEW_ROWS
        return files.read_json(path) if path.is_file() else []

    def _read(self, row: ManifestRow) -> tuple[Any, Any]:
        path = self.shards / row.shard
        if not path.is_file() or files.sha256(path) != row.shard_sha256:
            raise UserError(
                f"{path}: this isn't the shard that the manifest names; run the prepare stage."
            )
        return ShardReader(path).read_volume()


def _test_cases(manifest: Manifest, split: SplitFile, folder: Path) -> list[str]:
    """The cases to score, once the split is known to be one of these very slices."""
    check_slices(split, manifest.name, {row.case: row.slices for row in manifest}, folder)
    if not split.cases["test"]:
        raise UserError(f"{folder}: the split has no test slices; name cases in split.test.")
    return split.cases["test"]


def _check_data(folder: Path, manifest: Manifest) -> None:
    """Refuse data that were prepared otherwise than those that the model was trained on."""
    record = trained.read_record(folder)
    problems = [
        f"{folder}: the model was trained with {what} {record.get(key)}, the data has {found}; "
        "evaluate it on data like it was trained on, or train again."
        for key, what, found in (
            ("class_names", "the organs", manifest.class_names),
            ("intensity", "the intensity rule", manifest.intensity),
            ("preparation", "the preparation", manifest.preparation),
        )
        if record.get(key) != found
    ]
    if problems:
        raise UserError(problems)


def _load(folder: Path, sam_checkpoint: str | None, device: str) -> SegmentationModel:
    # a preset's path may not be there, while a model that was imported knows its own
    here = sam_checkpoint is not None and Path(sam_checkpoint).is_file()
    known = trained.recorded_checkpoint(folder)
    chosen = sam_checkpoint if here or known is None else known
    return trained.load_model(folder, chosen, device, "train.sam_checkpoint")


def _stages(network: SegmentationModel, wanted: str, device: str) -> tuple[str, ...]:
    """What to predict: all three stages, or the one that is scored where there aren't two.

    Better known now than after the first volume.
    """
    known = model_stages(network, device)
    if wanted not in known:
        raise UserError(
            f"evaluate.stage: this model has no {wanted} stage; set it to {' or '.join(known)}."
        )
    return known if set(TWO_STAGES) <= set(known) else (wanted,)


def _note(case: str, measured: dict[str, Measures]) -> str:
    # the same under every convention: organs that are there, 0 for those that were missed
    there = [m for m in measured.values() if m.truth_voxels]
    mean = dice.mean(apply_convention(m, "strict")["dice"] for m in there)
    return f"{case}: Dice {mean:.3f}" if there else f"{case}: no organ"


def _write_outputs(out: Path, scoring: Scoring, cases: Sequence[str], split_hash: str) -> None:
    """Fill `out` afresh: what an interrupted run left there goes away."""
    shutil.rmtree(out)
    settings, organs = scoring.settings, scoring.manifest.class_names
    found = {case: scoring.measured(case) for case in cases}
    measured = {case: stages[settings.stage] for case, stages in found.items()}
    rows = tables.write_scores(out, measured, organs, settings.convention)
    summary = tables.summary(rows, measured, settings.convention)
    stages = [stage for stage in ("mean", *TWO_STAGES) if all(stage in f for f in found.values())]
    stage_rows, by_stage = [], {}
    if len(stages) > 1:
        for stage in stages:
            own = tables.organ_rows({case: f[stage] for case, f in found.items()}, organs)
            stage_rows += [{"stage": stage} | row for row in own]
            by_stage[stage] = tables.overall(own, settings.convention)
    tables.write_table(out, "stages", stage_rows, STAGES)
    review = disagreement.worst_first(row for case in cases for row in scoring.review(case))
    tables.write_table(out, "review", review, REVIEW)
    about = {
        "cases": len(cases),
        "split": split_hash,
        "stage": settings.stage,
        "convention": settings.convention,
    }
    extra = {"stages": by_stage, "review": _correlation(review)} if by_stage else {}
    files.write_json(out / "metrics.json", summary | about | extra)
    _copy_predictions(out, scoring, cases, stages if by_stage else [])


def _correlation(review: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How well the stages' disagreement foretells the true Dice, over organs and slices."""
    known = [row for row in review if row["dice"] is not None]
    value = disagreement.rank_correlation(
        [row["disagreement"] for row in known], [row["dice"] for row in known]
    )
    return {"pairs": len(known)} | ({} if value is None else {"spearman": value})


def _copy_predictions(
    out: Path, scoring: Scoring, cases: Sequence[str], stages: Sequence[str]
) -> None:
    targets: dict[Path, str] = {out / "predictions": scoring.settings.stage}
    targets |= {out / "stages" / stage: stage for stage in stages if stage in TWO_STAGES}
    # there also when a model has one stage, since both engines expect it
    (out / "stages").mkdir(parents=True)
    for folder, stage in targets.items():
        folder.mkdir(parents=True)
        for case in cases:
            source = scoring.finished / case / f"{stage}.nii.gz"
            shutil.copyfile(source, folder / f"{case}.nii.gz")
