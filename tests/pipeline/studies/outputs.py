"""Outputs of runs with scores made by hand, as the stages write them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.core import files, run_folder
from pipeline.core.params.blocks import stage_params
from pipeline.scoring import tables
from pipeline.scoring.scores import SCORES
from pipeline.shards.manifest import Manifest, ManifestRow, write_manifest
from pipeline.shards.roles import SplitFile, write_split
from pipeline.studies.plan import Run, Study

RESULTS = Path("results")
CASES = ("a", "b", "c", "d", "e", "f")
ORGANS = ("liver", "spleen")
SHAPE, SPACING = (11, 30, 26), (3.0, 0.7, 1.1)
TRAIN_SLICES = 4

# Dice of a case and an organ in a run
Scored = Callable[[Run, str, str], float]


def finish(
    study: Study,
    dice: Scored,
    cases: tuple[str, ...] = CASES,
    tested: Callable[[Run], tuple[str, ...]] | None = None,
) -> None:
    """Write the outputs of all runs: HD95 is 10 voxels or 20 mm at Dice 0 and 0 at Dice 1.

    Args:
        study: whose runs.
        dice: of a case and an organ in a run.
        cases: all that were prepared.
        tested: which of them a run is scored on; None: all.
    """
    for run in study.runs:
        own = cases if tested is None else tested(run)
        write_outputs(run, cases_table(run, dice, own), prepared=cases)


def cases_table(run: Run, dice: Scored, cases: tuple[str, ...] = CASES) -> list[dict]:
    """Rows of a run's table `cases`, the organs of a case beside each other."""
    return [_row(case, organ, dice(run, case, organ)) for case in cases for organ in ORGANS]


def write_outputs(
    run: Run, rows: list[dict], weights: bytes = b"weights", prepared: tuple[str, ...] = ()
) -> None:
    """Write all outputs of a run.

    Args:
        run: the run.
        rows: of the table `cases`.
        weights: content of the file of the weights.
        prepared: cases that were prepared besides those of the rows.
    """
    places, cases = run.places(RESULTS), list(dict.fromkeys(row["case"] for row in rows))
    manifest, split = _manifest([*cases, *prepared]), _split(run, cases)
    write_manifest(places["prepare"] / "manifest.parquet", manifest)
    write_split(places["split"] / "split.parquet", split)
    train = run.params.train
    config = {
        "model": train.model,
        "backbone": train.backbone,
        "image_size": train.image_size,
        "lora_rank": train.lora_rank,
    }
    record = {"format": 1, "config": config, "needs_sam_checkpoint": False}
    files.write_json(places["train"] / "model.json", record)
    (places["train"] / "model.safetensors").write_bytes(weights)
    files.write_json(places["train"] / "cost.json", {"seconds": 9.0, "device": "CPU", "devices": 1})
    files.write_text(places["train"] / "history.csv", "epoch,train_loss\n0,1.5\n1,0.5\n")
    inputs = {
        "manifest": files.sha256(places["prepare"] / "manifest.parquet"),
        "split": split.hash,
        **{n: files.sha256(places["train"] / n) for n in run_folder.MODEL_FILES},
    }
    for stage, used in (("train", {}), ("evaluate", inputs)):
        record = {"params": stage_params(run.params, stage), "inputs": used}
        files.write_json(places[stage] / run_folder.PROVENANCE, record)
    tables.write_table(places["evaluate"], "cases", rows, tables.case_schema())


def _row(case: str, organ: str, dice: float) -> dict:
    values = dict.fromkeys(SCORES, dice)
    values |= {"hd95_voxels": 10 * (1 - dice), "hd95_mm": 20 * (1 - dice)}
    sizes = {"truth_voxels": 100, "predicted_voxels": 90, "voxel_mm": max(SPACING)}
    return {"case": case, "organ": organ, **values, **sizes}


def _manifest(cases: list[str]) -> Manifest:
    rows = tuple(
        ManifestRow(
            case=case,
            shard=f"{case}.parquet",
            shard_sha256="0",
            image_sha256="0",
            label_sha256="0",
            shape=SHAPE,
            spacing_mm=SPACING,
            source_shape=SHAPE[::-1],
            source_affine=(1.0,) * 16,
            orientation="LPS",
            low=0.0,
            high=1.0,
            slices=SHAPE[0],
            counts=(1, 1, 1),
            role=None,
        )
        for case in sorted({*cases, "learned"})
    )
    intensity = {"kind": "window", "low": 0.0, "high": 1.0}
    preparation = {"axes": "SPL", "spacing_mm": None}
    return Manifest("phantom", list(ORGANS), intensity, preparation, rows)


def _split(run: Run, cases: list[str]) -> SplitFile:
    """All cases are tested; of another one so many slices are learned from as the share says."""
    learned = round((run.params.split.slices or 1.0) * 100)
    roles: Mapping = {("learned", index): "train" for index in range(learned)}
    return SplitFile("phantom", {**roles, **{(case, 0): "test" for case in cases}})
