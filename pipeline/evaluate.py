"""Stage evaluate: the test cases, predicted and scored organ by organ.

Inputs: shards and manifest (prepare), the split, model.json and model.safetensors (train).
Outputs: metrics.json (means, for `dvc metrics`), cases.csv and cases.parquet (one row a case and
organ), predictions/<case>.nii.gz on the grid of the source, provenance.json. Finished cases lie
in the run folder, where an interrupted evaluation goes on. Units: docs/evaluation.md.
"""

import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError

import hsam
from pipeline import files, metrics, run_folder, volumes
from pipeline.console import say, steps
from pipeline.errors import UserError
from pipeline.params import Evaluate, Params, stage_params
from pipeline.predict import predict_volume
from pipeline.shards import Manifest, ShardReader, read_manifest
from pipeline.split_file import SplitFile, read_split

SCORES = ("dice", "hd95_voxels", "hd95_mm")
TABLE = pa.schema(
    [
        pa.field("case", pa.string(), nullable=False),
        pa.field("organ", pa.string(), nullable=False),
        *(pa.field(score, pa.float64()) for score in SCORES),
        pa.field("truth_voxels", pa.int64(), nullable=False),
        pa.field("predicted_voxels", pa.int64(), nullable=False),
    ]
)
MODEL_FILES = ("model.json", "model.safetensors")
PREDICTION, MEASURES = "prediction.nii.gz", "measures.json"

# organ to what was measured, of one case
Measured = dict[str, metrics.Measures]


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
        prepared, split, model: published folders of prepare, split and train.
        out: folder to publish to.
        runs: folder of the run folders.
        device: "cpu" or "cuda".

    Raises:
        UserError: inputs that are missing or don't belong together, or no test case.
    """
    manifest = read_manifest(prepared / "manifest.parquet")
    roles = read_split(split / "split.parquet")
    cases = _test_cases(manifest, roles, split)
    _check_model(model, manifest)
    inputs = {
        "manifest": files.sha256(prepared / "manifest.parquet"),
        "split": roles.hash,
        **{name: files.sha256(model / name) for name in MODEL_FILES},
    }
    key = stage_params(params, "evaluate")
    with run_folder.open_run(runs, manifest.name, "evaluate", key, inputs) as work:
        if work.is_done():
            say(f"evaluate: already done in {work.path}")
        else:
            scoring = Scoring(params.evaluate, manifest, prepared / "shards", work.path / "cases")
            if pending := [case for case in cases if not scoring.is_done(case)]:
                network = _load_model(model, params.train.sam_checkpoint, params.evaluate, device)
                with steps("evaluate", len(cases), len(cases) - len(pending)) as bar:
                    for case in pending:
                        bar.advance(_note(case, scoring.score(case, network, device)))
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

    def score(self, case: str, network: hsam.SegmentationModel, device: str) -> Measured:
        """Predict and measure one case; its folder appears when both are done.

        Raises:
            UserError: the shard isn't the one in the manifest.
        """
        row = self.manifest.case(case)
        path = self.shards / row.shard
        if not path.is_file() or files.sha256(path) != row.shard_sha256:
            raise UserError(
                f"{path}: this isn't the shard that the manifest names; run the prepare stage."
            )
        images, truth = ShardReader(path).read_volume()
        prediction = predict_volume(
            network,
            images,
            stage=self.settings.stage,
            batch_size=self.settings.batch_size,
            device=device,
        )
        names = self.manifest.class_names
        found = metrics.measure_labels(truth, prediction, range(1, len(names) + 1), row.spacing_mm)
        measured = {names[label - 1]: measures for label, measures in found.items()}
        self.finished.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{case}-", dir=self.finished))
        source = volumes.restore_labels(prediction, row.geometry)
        volumes.write_label_nifti(folder / PREDICTION, source, row.geometry)
        files.write_json(folder / MEASURES, {n: _to_json(m) for n, m in measured.items()})
        os.rename(folder, self.finished / case)
        return measured

    def measured(self, case: str) -> Measured:
        """What was measured in a finished case."""
        stored = files.read_json(self.finished / case / MEASURES)
        return {organ: _from_json(values) for organ, values in stored.items()}


def score_rows(measured: Mapping[str, Measured], convention: str) -> list[dict[str, Any]]:
    """One row of TABLE a case and organ; None for what the convention leaves out.

    Args:
        measured: case to organ to what was measured.
        convention: one of `metrics.CONVENTIONS`.
    """
    rows = []
    for case, organs in measured.items():
        for organ, measures in organs.items():
            score = asdict(metrics.apply_convention(measures, convention))
            rows.append(
                {
                    "case": case,
                    "organ": organ,
                    **{name: None if math.isnan(value) else value for name, value in score.items()},
                    "truth_voxels": measures.truth_voxels,
                    "predicted_voxels": measures.predicted_voxels,
                }
            )
    return rows


def summarise(rows: Sequence[Mapping[str, Any]], organs: Sequence[str]) -> dict[str, Any]:
    """Means over cases of each organ, and over organs of those means.

    What is left out in every case has no entry, so every number is finite.

    Returns:
        mean_dice, mean_hd95_voxels, mean_hd95_mm, and by organ dice, hd95_voxels, hd95_mm.
    """
    overall, by_organ = {}, {}
    for score in SCORES:
        by_organ[score] = {}
        for organ in organs:
            values = [row[score] for row in rows if row["organ"] == organ]
            if kept := [value for value in values if value is not None]:
                by_organ[score][organ] = metrics.mean(kept)
        if by_organ[score]:
            overall[f"mean_{score}"] = metrics.mean(by_organ[score].values())
    return overall | by_organ


def _test_cases(manifest: Manifest, split: SplitFile, folder: Path) -> list[str]:
    """The cases to score, once the split is known to be one of these very slices."""
    prepared = {row.case: row.slices for row in manifest}
    divided = Counter(case for case, _ in split.roles)
    problems = [
        f"{folder}: the split {split.hash[:12]} has {divided.get(case, 0)} slices of {case}, the "
        f"prepared data has {prepared.get(case, 0)}; run the split stage again."
        for case in sorted(prepared.keys() | divided.keys())
        if divided.get(case, 0) != prepared.get(case, 0)
    ]
    if split.name != manifest.name:
        problems.append(
            f"{folder}: the split {split.hash[:12]} is one of {split.name}, the prepared data is "
            f"{manifest.name}; run the split stage again."
        )
    if not split.cases["test"]:
        problems.append(f"{folder}: the split has no test slices; name cases in split.test.")
    if problems:
        raise UserError(problems)
    return split.cases["test"]


def _check_model(folder: Path, manifest: Manifest) -> None:
    missing = [folder / name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{path}: there is no such file; run the train stage first." for path in missing
        )
    try:
        record = hsam.read_record(folder)
    except ValueError as error:
        raise UserError(
            f"{folder / MODEL_FILES[0]}: can't be read ({error}); run the train stage again."
        ) from None
    problems = [
        f"{folder}: the model was trained with {what} {record.get(key)}, the data has {found}; "
        "evaluate it on data like it was trained on, or train again."
        for key, what, found in (
            ("class_names", "the organs", manifest.class_names),
            ("intensity", "the intensity rule", manifest.intensity),
        )
        if record.get(key) != found
    ]
    if problems:
        raise UserError(problems)


def _load_model(
    folder: Path, sam_checkpoint: str | None, settings: Evaluate, device: str
) -> hsam.SegmentationModel:
    needed = hsam.read_record(folder)["needs_sam_checkpoint"]
    try:
        model = hsam.load(folder, sam_checkpoint=sam_checkpoint if needed else None, device=device)
    except (FileNotFoundError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{folder / MODEL_FILES[1]}: can't be loaded ({error}); run the train stage again, "
            "with the same train.sam_checkpoint."
        ) from None
    side = model.image_size
    try:
        # not every model has every stage; better known now than after the first volume
        with torch.inference_mode():
            model(torch.zeros(1, 1, side, side, device=device)).logits(settings.stage)
    except ValueError as error:
        raise UserError(f"evaluate.{error}.") from None
    return model


def _note(case: str, measured: Measured) -> str:
    # the same under every convention: organs that are there, 0 for those that were missed
    there = [m for m in measured.values() if m.truth_voxels]
    mean = metrics.mean(metrics.apply_convention(m, "strict").dice for m in there)
    return f"{case}: Dice {mean:.3f}" if there else f"{case}: no organ"


def _write_outputs(out: Path, scoring: Scoring, cases: Sequence[str], split_hash: str) -> None:
    """Fill `out` afresh: what an interrupted run left there goes away."""
    shutil.rmtree(out)
    (out / "predictions").mkdir(parents=True)
    settings = scoring.settings
    rows = score_rows({case: scoring.measured(case) for case in cases}, settings.convention)
    table = pa.Table.from_pylist(rows, TABLE)
    pq.write_table(table, out / "cases.parquet")
    table.to_pandas().to_csv(out / "cases.csv", index=False, lineterminator="\n")
    summary = summarise(rows, scoring.manifest.class_names)
    about = {
        "cases": len(cases),
        "split": split_hash,
        "stage": settings.stage,
        "convention": settings.convention,
    }
    files.write_json(out / "metrics.json", summary | about)
    for case in cases:
        shutil.copyfile(
            scoring.finished / case / PREDICTION, out / "predictions" / f"{case}.nii.gz"
        )


def _to_json(measures: metrics.Measures) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in asdict(measures).items()}


def _from_json(values: Mapping[str, float | None]) -> metrics.Measures:
    return metrics.Measures(
        **{name: math.nan if value is None else value for name, value in values.items()}
    )
