"""`hsam predict`: label maps of a user's own scans, each on exactly the grid of its scan.

Output for each scan, in one folder: the label map, a JSON record of what was done, a review list
if the model has two stages, and on request probabilities, a picture, a DICOM Segmentation and an RT
Structure Set.
Memory: the scan's voxels as read, one byte a voxel for each label map, and one batch of slices.
"""

import csv
import io
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from pipeline.core.console import console, say, steps
from pipeline.core.errors import UserError
from pipeline.core.files import write_json, write_text
from pipeline.core.params.blocks import Percentile, Window
from pipeline.core.run_folder import MODEL_FILES
from pipeline.datasets.phantom import Phantom
from pipeline.imaging import intensity, label_volumes, scans
from pipeline.imaging.dicom.series import Series
from pipeline.imaging.geometry import (
    BEGINS,
    PLANES,
    Geometry,
    resampled_size,
    restore_labels,
    slices_view,
    source_slice,
)
from pipeline.imaging.label_tables import write_label_files
from pipeline.imaging.resize import resample_images
from pipeline.imaging.scan_intensity import Bounds, find_bounds
from pipeline.imaging.scans import Scan, Source
from pipeline.inference import records, trained, unlike, usual
from pipeline.inference.identity import identify, sentence
from pipeline.inference.probabilities import open_probabilities
from pipeline.inference.trained import Ready
from pipeline.inference.tta import averaged
from pipeline.inference.usual import Tally
from pipeline.inference.volume import STEPS, forward, model_stages, predict_batches
from pipeline.scoring.disagreement import TWO_STAGES
from pipeline.scoring.review import Pairs, review_rows, uncertain_pixels

SYNTHETIC = "the model has learned from made-up volumes; its labels of a real scan mean nothing."
PROBABILITIES = "probabilities"  # folder below the output folder
# columns of the review list after the slice's
REVIEW = ("source_slice", "first", "last", "organ", "expected_mm2", "disagreement")


@dataclass(frozen=True)
class Wanted:
    """What the user asks for.

    Attributes:
        stage: whose labels to write: "mean", "coarse" or "fine".
        tta: average over views of each slice (`pipeline.inference.tta`).
        batch: slices per forward pass.
        probabilities, overlay, dicom_seg, rtstruct: write these too.
        ending: of the label maps, one of `label_volumes.FORMATS`; None: that of the scan.
        series: which DICOM series to read, where a folder has several.
    """

    stage: str = "mean"
    tta: bool = False
    batch: int = 16
    probabilities: bool = False
    overlay: bool = False
    dicom_seg: bool = False
    rtstruct: bool = False
    ending: str | None = None
    series: str | None = None


@dataclass(frozen=True, eq=False)
class Predictor:
    """A loaded run.

    Attributes:
        ready: the model.
        names: organs of the labels 1, 2, ...
        rule: how intensities become [0, 1].
        axes: of its slices, as in `pipeline.imaging.geometry`.
        spacing_mm: in-plane spacing that slices are resampled to; None: they aren't.
        device: "cpu" or "cuda".
        stages: that the model has: "mean", "coarse", "fine", or one of them.
        identity: which model it is, from `inference.identity`.
        usual: what its training slices look like, from `inference.usual`; None where its record
            doesn't say.
    """

    ready: Ready
    names: list[str]
    rule: Window | Percentile
    axes: str
    spacing_mm: float | None
    device: str
    stages: tuple[str, ...]
    identity: dict[str, Any]
    usual: dict[str, Any] | None

    @classmethod
    def load(cls, run: Path, checkpoint: Path | None, device: str) -> "Predictor":
        """Load a run's model, ready to predict.

        Args:
            run: a run folder of training, results/train or an imported one.
            checkpoint: SAM's file for a model with a frozen encoder; None: the recorded one.
            device: "cpu" or "cuda".

        Raises:
            UserError: no model there, or a record that doesn't say how to prepare a scan for it.
        """
        folder = records.model_folder(run)
        record = records.read_record(folder)
        try:
            names = list(record["class_names"])
            rule = intensity.rule(record["intensity"])
            preparation = record["preparation"]
            axes, spacing_mm = preparation["axes"], preparation["spacing_mm"]
            known = usual.recorded(record)
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{folder / MODEL_FILES[0]}: expected class names, intensity rule and "
                "preparation, found none, or damaged ones; the run can't be applied to a scan. "
                "Train it again."
            ) from None
        ready = trained.load_for_inference(folder, checkpoint, device)
        stages = model_stages(ready.model)
        identity = identify(folder, record)
        return cls(ready, names, rule, axes, spacing_mm, device, stages, identity, known)


@dataclass(frozen=True, eq=False)
class ScanSlices:
    """A scan's slices, prepared as the run's training slices were, each batch when it is asked for.

    Attributes:
        scan: in the axes of its file.
        bounds: intensities that become 0 and 1.
        axes: of the slices.
        spacing_mm: in-plane spacing that the run's slices were resampled to, or None.
    """

    scan: Scan
    bounds: Bounds
    axes: str
    spacing_mm: float | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the prepared scan, (slices, rows, columns)."""
        geometry = self.scan.volume.geometry
        size = resampled_size(geometry, self.axes, self.spacing_mm)
        return (geometry.sliced_shape(self.axes)[0], *size)

    @property
    def pixel_spacing(self) -> tuple[float, float, float]:
        """Voxel sides along slice, row and column of the prepared slices, mm."""
        geometry = self.scan.volume.geometry
        old_sides = geometry.sliced_spacing(self.axes), geometry.sliced_shape(self.axes)
        sides = zip(*old_sides, self.shape, strict=True)
        slices, rows, columns = (mm * old / new for mm, old, new in sides)
        return slices, rows, columns

    def __getitem__(self, index: slice) -> NDArray[np.float32]:
        """B slices (B, rows, columns) in [0, 1]; the steps and their order are prepare's."""
        volume = self.scan.volume
        part = slices_view(volume.array, volume.geometry, self.axes)[index]
        if self.spacing_mm is not None:
            part = resample_images(part, self.shape[1:])
        low, high = self.bounds.low, self.bounds.high
        return intensity.to_unit(intensity.clip(part, low, high), low, high)


def run(
    paths: Sequence[Path],
    run: Path,
    out: Path,
    wanted: Wanted,
    checkpoint: Path | None,
    device: str,
) -> bool:
    """Predict scans, one after the other; a bad one among several doesn't stop the others.

    Args:
        paths: scan files, folders of scan files, or folders of DICOM series.
        run: a run folder of training, results/train or an imported one.
        out: folder to write to.
        wanted: what to write, and how to predict.
        checkpoint: SAM's file for a model with a frozen encoder; None: the recorded one.
        device: "cpu" or "cuda".

    Returns:
        Whether every scan was predicted; the others are printed with the reason.

    Raises:
        UserError: no scan, no model, a stage that the model lacks, or the only scan is bad.
    """
    sources = scans.find(paths)
    _check_targets(sources, out, wanted)
    predictor = Predictor.load(run, checkpoint, device)
    if wanted.stage not in predictor.stages:
        known = " or ".join(predictor.stages)
        raise UserError(f"--stage: this model has no {wanted.stage} stage; choose {known}.")
    say(f"predict: {sentence(predictor.identity)}")
    failed: dict[str, str] = {}
    for source in sources:
        try:
            predict_scan(source, predictor, out, wanted, run)
            write_label_files(out, predictor.names)
        except UserError as error:
            if len(sources) == 1:
                raise
            failed[source.name] = " ".join(error.problems)
            say(f"{source.name}: failed")
    if len(sources) > 1:
        say(f"predict: {len(sources) - len(failed)} of {len(sources)} scans, in {out}")
    _print_failed(failed)
    return not failed


def predict_scan(
    source: Source, predictor: Predictor, out: Path, wanted: Wanted, run: Path
) -> NDArray[np.uint8]:
    """Predict one scan and write everything that is asked for.

    Args:
        source: the scan's file or DICOM series.
        predictor: the loaded run.
        out: folder to write to.
        wanted: what to write, and how to predict.
        run: the run's folder, for the record.

    Returns:
        The labels in the scan's own axes.

    Raises:
        UserError: a scan that can't be read, or one unlike those that the run was trained on.
    """
    scan = scans.read(source, wanted.series)
    for option, asked in (("--dicom-seg", wanted.dicom_seg), ("--rtstruct", wanted.rtstruct)):
        if asked and scan.series is None:
            raise UserError(f"{source.path}: {option} needs a DICOM series, this is none.")
    target = out / f"{source.name}{_ending(source, wanted)}"
    label_volumes.check_grid(target, scan.volume.geometry, scan.like)
    bounds = find_bounds(source.name, scan, predictor.rule)
    images = ScanSlices(scan, bounds, predictor.axes, predictor.spacing_mm)
    warnings = [*scan.warnings, *_shape_hints(scan, predictor.axes), *bounds.warnings]
    for warning in warnings:
        say(f"warning: {source.name}: {warning}")
    out.mkdir(parents=True, exist_ok=True)
    labels, uncertain = _label(source.name, images, predictor, out, wanted)
    geometry, chosen = scan.volume.geometry, labels[wanted.stage]
    restored = restore_labels(chosen, geometry, predictor.axes)
    for warning in (unlikely := _unlike_training(images, chosen, predictor)):
        say(f"warning: {source.name}: {warning}")
    warnings += unlikely
    label_volumes.write_labels(target, restored, geometry, scan.like)
    if wanted.overlay:
        # drawing takes longer to import than predicting a slice
        from pipeline.reporting.overlay import write_overlay

        path = out / f"{source.name}_overlay.png"
        write_overlay(path, images, chosen, predictor.names, images.pixel_spacing, predictor.axes)
    if scan.series is not None:
        warnings += _write_dicom(
            out / source.name, scan.series, geometry, restored, predictor, wanted
        )
    _write_review(out / f"{source.name}_review.csv", labels, uncertain, images, predictor.names)
    record = _record(source, scan, bounds, restored, predictor, wanted, warnings)
    write_json(out / f"{source.name}.json", record | {"run": str(run), "label_map": target.name})
    return restored


def _label(
    name: str, images: ScanSlices, predictor: Predictor, out: Path, wanted: Wanted
) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.float64] | None]:
    """Predict the wanted stage, and both stages for the review list if the model has two.

    Writes the wanted stage's probabilities meanwhile, if they are asked for.

    Returns:
        Stage to labels (slices, rows, columns); of a model of one stage, the pixels that its
        probabilities leave open, (slices, organs).
    """
    reviewed = TWO_STAGES if set(TWO_STAGES) <= set(predictor.stages) else ()
    stages = tuple(dict.fromkeys((wanted.stage, *reviewed)))
    uncertain = None if reviewed else np.zeros((images.shape[0], len(predictor.names)))
    labels = {stage: np.empty(images.shape, np.uint8) for stage in stages}
    predictions = predict_batches(
        predictor.ready.model,
        images,
        stages,
        batch_size=wanted.batch,
        device=predictor.device,
        forward=averaged if wanted.tta else forward,
        resizing=predictor.ready.resizing,
        probabilities=wanted.stage if wanted.probabilities or uncertain is not None else None,
    )
    with ExitStack() as stack:
        bar = stack.enter_context(steps(name, -(-images.shape[0] // wanted.batch)))
        probabilities = None
        if wanted.probabilities:
            # in a folder of their own: other programs would take them for label maps
            path = out / PROBABILITIES / f"{name}.nii.gz"
            geometry = images.scan.volume.geometry
            probabilities = stack.enter_context(
                open_probabilities(
                    path, predictor.ready.model.classes, images.shape, geometry, images.axes
                )
            )
        for batch in predictions:
            batch.put(labels)
            if uncertain is not None and batch.probabilities is not None:
                uncertain[batch.first : batch.first + len(batch)] = uncertain_pixels(
                    batch.labels[wanted.stage], batch.probabilities, STEPS
                )
            if probabilities is not None:
                probabilities.add(batch)
            bar.advance(f"{batch.first + len(batch)} slices")
    return labels, uncertain


def _unlike_training(
    images: ScanSlices, labels: NDArray[np.uint8], predictor: Predictor
) -> list[str]:
    """Warnings about a scan, and labels of it, unlike what the model has learned from."""
    found = [SYNTHETIC] if predictor.identity["data_set"] == Phantom.name else []
    if predictor.usual is not None:
        tally = Tally(len(predictor.names), images.pixel_spacing)
        for index, part in enumerate(labels):
            tally.add(images[index : index + 1][0], part)
        found += unlike.scan_warnings(predictor.usual, tally)
        found += unlike.label_warnings(predictor.usual, predictor.names, tally, predictor.axes)
    return found


def _check_targets(sources: Sequence[Source], out: Path, wanted: Wanted) -> None:
    """Refuse an output folder in which a label map would replace a scan."""
    scan_paths = {source.path.resolve() for source in sources}
    problems = [
        f"{source.path}: its label map would replace a scan; choose another --out than {out}."
        for source in sources
        if (out / f"{source.name}{_ending(source, wanted)}").resolve() in scan_paths
    ]
    if problems:
        raise UserError(problems)


def _ending(source: Source, wanted: Wanted) -> str:
    """The ending of a scan's label map."""
    like = None if source.path.is_dir() else source.path
    return wanted.ending or label_volumes.format_for(like)


def _shape_hints(scan: Scan, axes: str) -> list[str]:
    """Warnings about scans with too few slices or pixels along the axes of the run."""
    slices, rows, columns = scan.volume.geometry.sliced_shape(axes)
    plane, hints = PLANES[axes[0]], []
    if slices == 1 and scan.series is None:
        hints.append(f"the volume has one {plane} slice; it was predicted by itself.")
    if min(rows, columns) < 16:
        hints.append(
            f"{plane} slices of {rows} x {columns} voxels are too few to show organs; was the "
            "volume acquired in another plane?"
        )
    return hints


def _write_dicom(
    path: Path,
    series: Series,
    geometry: Geometry,
    labels: NDArray[np.uint8],
    predictor: Predictor,
    wanted: Wanted,
) -> list[str]:
    """Write the DICOM objects that are asked for, `path` and an ending each; what isn't possible
    is a warning with the reason.
    """
    if not wanted.dicom_seg and not wanted.rtstruct:
        return []
    from pipeline.imaging.dicom import segmentation, structures

    names, warnings = predictor.names, []
    segment = partial(segmentation.write_dicom_seg, labels=labels, series=series, names=names)
    outline = partial(
        structures.write_rtstruct, labels=labels, geometry=geometry, series=series, names=names
    )
    for asked, what, ending, write in (
        (wanted.dicom_seg, "DICOM Segmentation", "seg", segment),
        (wanted.rtstruct, "RT Structure Set", "rtstruct", outline),
    ):
        warning = segmentation.obstacle(labels, series, what) if asked else None
        if asked and warning is None:
            try:
                write(path.with_name(f"{path.name}.{ending}.dcm"))
            except UserError as error:
                warning = str(error)
        if warning is not None:
            say(f"warning: {path.name}: {warning}")
            warnings.append(warning)
    return warnings


def _write_review(
    path: Path,
    labels: dict[str, NDArray[np.uint8]],
    uncertain: NDArray[np.float64] | None,
    images: ScanSlices,
    names: Sequence[str],
) -> None:
    """The review list as CSV; `uncertain` as `_label` returns it."""
    _, row_mm, column_mm = images.pixel_spacing
    if uncertain is None:
        two = Pairs.of(labels["coarse"], labels["fine"], len(names))
        expected = row_mm * column_mm * two.differing
    else:
        two, expected = None, row_mm * column_mm * uncertain
    geometry = images.scan.volume.geometry
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    begins = BEGINS[images.axes[0]]
    # counted from the feet unless the name says otherwise
    writer.writerow(("slice" if begins == "feet" else f"slice_from_{begins}", *REVIEW))
    for row in review_rows(path.name, expected, names, two):
        place = source_slice(geometry, images.axes, row["slice"])
        area, share = row["expected_mm2"], row["disagreement"]
        writer.writerow(
            (
                *(row["slice"], place, row["first"], row["last"], row["organ"], f"{area:.1f}"),
                "" if share is None else f"{share:.4f}",
            )
        )
    write_text(path, text.getvalue())


def _record(
    source: Source,
    scan: Scan,
    bounds: Bounds,
    labels: NDArray[np.uint8],
    predictor: Predictor,
    wanted: Wanted,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The JSON record: the scan, how it was predicted, and each organ's volume."""
    geometry = scan.volume.geometry
    classes = len(predictor.names) + 1
    # slice by slice, since bincount makes a copy of eight bytes a voxel
    by_slice = [np.bincount(part.ravel(), minlength=classes) for part in labels]
    counts = np.sum(by_slice, axis=0).tolist()
    voxel_ml = abs(float(np.linalg.det(geometry.affine[:3, :3]))) / 1000
    return {
        "scan": source.name,
        "shape": list(geometry.shape),
        "spacing_mm": list(geometry.spacing),
        "orientation": geometry.orientation,
        "slice_axes": predictor.axes,
        "low": bounds.low,
        "high": bounds.high,
        "stage": wanted.stage,
        "tta": wanted.tta,
        "model": predictor.identity,
        "precision": predictor.ready.precision.record(),
        "labels": {name: index for index, name in enumerate(predictor.names, 1)},
        "voxels": dict(zip(predictor.names, counts[1:], strict=True)),
        "millilitres": {
            name: round(count * voxel_ml, 3)
            for name, count in zip(predictor.names, counts[1:], strict=True)
        },
        "warnings": list(warnings),
    }


def _print_failed(failed: dict[str, str]) -> None:
    if not failed:
        return
    table = Table("scan", "what failed and why", box=None, header_style="bold")
    for name, reason in failed.items():
        table.add_row(name, reason)
    # a log file has no width to fit into
    console.print(table, width=None if console.is_terminal else 10_000, soft_wrap=True)
