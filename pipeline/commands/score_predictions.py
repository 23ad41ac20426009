"""Scores what another tool predicted of a run's test cases, as `evaluate` scores a model's labels.

Outputs: as of the stage evaluate, without what only a model has: metrics.json, headline.json, the
tables cases and organs, an empty table stages, predictions/<case>.nii.gz, provenance.json.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core import files, run_folder, sources
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Params, stage_params
from pipeline.core.pool import over_cases
from pipeline.datasets import nnunet_export
from pipeline.imaging.geometry import resample_labels, to_slices
from pipeline.imaging.grids import grid_difference
from pipeline.imaging.volumes import write_label_nifti
from pipeline.scoring import tables
from pipeline.scoring.labels import Labelled, read_labels
from pipeline.scoring.measures import Measures, measure_organs
from pipeline.scoring.metrics_file import HEADLINE, METRICS, headline
from pipeline.scoring.organs import Organs, read_file_names, read_label_names
from pipeline.scoring.pairs import Source, find_predictions, place
from pipeline.scoring.predictions import DESCRIPTION, digest_of
from pipeline.shards.case import ShardReader
from pipeline.shards.manifest import Manifest, ManifestRow, read_manifest
from pipeline.shards.roles import check_slices, read_split


@dataclass(frozen=True)
class Work:
    """One case to score.

    Attributes:
        row, shards, axes: what was prepared of it, where it lies, along which axes.
        class_names: organs; `class_names[k - 1]` is class k.
        source, organs: its predicted labels, and what they mean.
        out: folder for its labels as classes.
    """

    row: ManifestRow
    shards: Path
    axes: str
    class_names: list[str]
    source: Source
    organs: Organs
    out: Path


def run(params: Params, prepared: Path, split: Path, predictions: Path, out: Path) -> None:
    """Score the split's test cases and write all outputs in place of what is at `out`.

    Args:
        params: `evaluate` is read.
        prepared, split: published folders of these stages.
        predictions: folder with a label volume a case on the grid of its source, or a folder of
            masks a case; labels are the classes 1 to K, or what its dataset.json says.
        out: folder to publish to.

    Raises:
        UserError: inputs that are missing or don't belong together, predictions that learned from
            another split, or can't be scored; nothing is written then.
    """
    path = prepared / "manifest.parquet"
    manifest, roles = read_manifest(path), read_split(split / "split.parquet")
    check_slices(roles, manifest.name, {row.case: row.slices for row in manifest}, split)
    _check_split(predictions, roles.hash)
    found = find_predictions(predictions, roles.cases["test"])
    settings = params.evaluate
    with files.staged_folder(out) as new:
        work = {
            case: Work(
                manifest.case(case),
                prepared / "shards",
                manifest.axes,
                manifest.class_names,
                source,
                _organs(predictions, source, manifest),
                new / "predictions",
            )
            for case, source in found.items()
        }
        measured, problems = over_cases(score_case, work, 1, "evaluate")
        if problems:
            raise UserError(problems)
        rows = tables.write_scores(new, measured, manifest.class_names, settings.convention)
        tables.write_table(new, "stages", [], tables.STAGES)
        about = {"cases": len(measured), "convention": settings.convention, "split": roles.hash}
        metrics = tables.summary(rows, measured, settings.convention) | about
        files.write_json(new / METRICS, metrics)
        files.write_json(new / HEADLINE, headline(metrics))
        key = {
            "stage": "evaluate",
            "params": stage_params(params, "evaluate"),
            "inputs": {
                "manifest": files.sha256(path),
                "split": roles.hash,
                "predictions": digest_of(predictions, found),
            },
            "code": sources.digest(__name__),
        }
        files.write_json(new / run_folder.PROVENANCE, run_folder.provenance(key))
    tables.print_scores(metrics, f"cases: {len(measured)}, of {predictions}")
    say(f"evaluate: {out / METRICS}")


def score_case(work: Work) -> dict[str, Measures]:
    """Measure one case, on the voxels of its shard; its labels are written as classes.

    Raises:
        UserError: labels that can't be read or lie on another grid, or another shard.
    """
    row = work.row
    predicted = read_labels(work.source, work.organs)
    if difference := grid_difference(row.geometry, predicted.geometry):
        raise UserError(
            f"{row.case}: {place(work.source)}: expected the grid of the case's image, found "
            f"{difference}; resample the prediction to it."
        )
    shard = work.shards / row.shard
    if not shard.is_file() or files.sha256(shard) != row.shard_sha256:
        raise UserError(
            f"{shard}: this isn't the shard that the manifest names; run the prepare stage."
        )
    _, truth = ShardReader(shard).read_volume()
    labels = predicted.array.transpose()  # (z, y, x) -> (x, y, z)
    slices = resample_labels(to_slices(labels, row.geometry, work.axes), row.shape[1:])
    organs = {
        name: ((label,), predicted.organs[name]) for label, name in enumerate(work.class_names, 1)
    }
    write_label_nifti(
        work.out / f"{row.case}.nii.gz", _classes(predicted, work.class_names), row.geometry
    )
    return measure_organs(truth, slices, organs, row.spacing_mm)


def _classes(predicted: Labelled, class_names: list[str]) -> NDArray[np.uint8]:
    """(x, y, z) classes; a voxel of two organs gets the later one."""
    found = np.zeros(predicted.array.shape, np.uint8)
    for label, name in enumerate(class_names, 1):
        found[np.isin(predicted.array, predicted.organs[name])] = label
    return found.transpose()


def _organs(folder: Path, source: Source, manifest: Manifest) -> Organs:
    """What the predicted labels, or the names of mask files, mean.

    Raises:
        UserError: a dataset.json of other organs.
    """
    described, names = folder / DESCRIPTION, manifest.class_names
    if not isinstance(source, Path):
        return read_file_names(described) if described.is_file() else {n: (n,) for n in names}
    if not described.is_file():
        return {name: (label,) for label, name in enumerate(names, 1)}
    found = read_label_names(described)
    if set(found) != set(names):
        raise UserError(
            f"{described}: expected the organs {', '.join(names)}, found {', '.join(found)}; "
            "predict with a model that learned them."
        )
    return found


def _check_split(predictions: Path, expected: str) -> None:
    """Refuse predictions whose dataset.json says that they learned from another split."""
    record = nnunet_export.read_record(predictions) or {}
    if (found := record.get("split", expected)) != expected:
        raise UserError(
            f"{predictions}: these were learned from the split {str(found)[:12]}, the run's is "
            f"{expected[:12]}; export the run's (hsam export-nnunet --study) and train on it."
        )
    if not record:
        say(
            f"warning: {predictions} doesn't say which split it was learned from, so that nobody "
            "knows whether it has seen test cases."
        )
