"""`hsam predict`: label maps of a user's own scans, each on exactly the grid of its scan.

Output for each scan, in one folder: the label map, a JSON record of what was done, a review list,
and on request probabilities, a picture, a DICOM Segmentation, an RT
Structure Set and a series of Secondary Capture images.
Memory: the scan's voxels as read, one byte a voxel for each label map, and one batch of slices.
"""

import csv
import io
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from hsam.version import __version__
from pipeline.core.console import console, say, steps
from pipeline.core.cost import device_name
from pipeline.core.errors import UserError
from pipeline.core.files import sha256_of, write_json, write_text
from pipeline.core.run_folder import MODEL_FILES, provenance
from pipeline.datasets.phantom import Phantom
from pipeline.imaging import channels, intensity, label_volumes, scans
from pipeline.imaging.geometry import (
    BEGINS,
    PLANES,
    restore_labels,
    source_slice,
    source_voxel,
)
from pipeline.imaging.label_tables import write_label_files
from pipeline.imaging.scan_intensity import Bounds, find_bounds
from pipeline.imaging.scans import Scan, Source
from pipeline.inference import records
from pipeline.inference.identity import evaluations, sentence
from pipeline.inference.predictor import Predictor
from pipeline.inference.probabilities import open_probabilities
from pipeline.inference.scan_slices import ScanSlices
from pipeline.inference.tta import averaged
from pipeline.inference.unlike import Unlike, compare
from pipeline.inference.volume import STEPS, predict_batches
from pipeline.scoring import calibration
from pipeline.scoring.calibration import Known
from pipeline.scoring.review import Pairs, review_rows
from pipeline.scoring.uncertainty import TWO_STAGES, ExpectedError, Uncertainty

SYNTHETIC = "the model has learned from made-up volumes; its labels of a real scan mean nothing."
LONGEST_TEXT = 1024  # characters of DICOM's short texts
PROBABILITIES = "probabilities"  # folder below the output folder
# columns of the review list after the slice's
REVIEW = ("source_slice", "first", "last", "organ", "voxel", "expected_mm2", "disagreement")


@dataclass(frozen=True)
class Wanted:
    """What the user asks for.

    Attributes:
        stage: whose labels to write: "mean", "coarse" or "fine".
        others: further runs, whose models' logits are averaged with the run's.
        snapshots: average with the models that were kept during each training, too.
        tta: average over views of each slice (`pipeline.inference.tta`).
        batch: slices per forward pass.
        probabilities, overlay, dicom_seg, rtstruct, secondary_capture: write these too.
        ending: of the label maps, one of `label_volumes.FORMATS`; None: that of the scan.
        series: which DICOM series to read, where a folder has several.
        report: file for the records of all scans and of the call; None: not written.
        case: name of the one scan whose channels the paths are; None: each is a scan, or channels
            are told by their names (`scans.of_channels`).
    """

    stage: str = "mean"
    others: tuple[Path, ...] = ()
    snapshots: bool = False
    tta: bool = False
    batch: int = 16
    probabilities: bool = False
    overlay: bool = False
    dicom_seg: bool = False
    rtstruct: bool = False
    secondary_capture: bool = False
    ending: str | None = None
    series: str | None = None
    report: Path | None = None
    case: str | None = None


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
        run: a run folder of training, results/train or an imported one; or the folder of a study's
            arm, whose models are averaged.
        out: folder to write to.
        wanted: what to write, and how to predict.
        checkpoint: SAM's file for a model with a frozen encoder; None: the recorded one.
        device: "cpu" or "cuda".

    Returns:
        Whether every scan was predicted; the others are printed with the reason.

    Raises:
        UserError: no scan, no model, a stage that the model lacks, or the only scan is bad.
    """
    started = datetime.now().astimezone()
    folders = [folder for one in (run, *wanted.others) for folder in records.model_folders(one)]
    record = records.read_record(folders[0])
    sources = scans.of_channels(
        scans.find(paths), channels.recorded(record.get("preparation")), wanted.case
    )
    _check_targets(sources, out, wanted)
    predictor = _load(folders, wanted.snapshots, checkpoint, device)
    if wanted.stage not in predictor.stages:
        known = " or ".join(predictor.stages)
        raise UserError(f"--stage: this model has no {wanted.stage} stage; choose {known}.")
    believed = _known(predictor, wanted)
    if believed.calibration is None:
        say(f"predict: how good its labels will be can't be said: {believed.source}")
    failed: dict[str, str] = {}
    done = []
    for source in sources:
        try:
            done.append(predict_scan(source, predictor, out, wanted, run, believed))
            write_label_files(out, predictor.names)
        except UserError as error:
            if len(sources) == 1:
                raise
            failed[source.name] = " ".join(error.problems)
            say(f"{source.name}: failed")
    if len(sources) > 1:
        say(f"predict: {len(sources) - len(failed)} of {len(sources)} scans, in {out}")
    _print_failed(failed)
    if wanted.report is not None:
        write_json(wanted.report, _report(started, predictor, wanted, done, failed))
    return not failed


def _load(
    folders: Sequence[Path], snapshots: bool, checkpoint: Path | None, device: str
) -> Predictor:
    """The models in folders, and what was kept of them during training if `snapshots`, as one; says
    which they are.

    Raises:
        UserError: a model that can't be loaded or isn't like the run's, or none kept in training.
    """
    first, *others = (Predictor.load(folder, checkpoint, device) for folder in folders)
    say(f"predict: {sentence(first.identity)}")
    for other in others:
        say(f"predict: averaged with {sentence(other.identity)}")
    kept: list[Predictor] = []
    for one in (first, *others) if snapshots else ():
        folder = Path(one.identity["folder"])
        if not (earlier := records.earlier(folder)):
            raise UserError(
                f"{folder}: --snapshots averages with other models that were kept during the "
                "training, of which there are none; train with train.snapshots: 5, say, or leave "
                "it out."
            )
        kept += (Predictor.load(path, checkpoint, device) for path in earlier.values())
        epochs = ", ".join(map(str, earlier))
        say(f"predict: averaged with the models that it was after {epochs} epochs: {folder}")
    return first.averaged_with([*others, *kept])


def predict_scan(
    source: Source, predictor: Predictor, out: Path, wanted: Wanted, run: Path, known: Known
) -> dict[str, Any]:
    """Predict one scan and write everything that is asked for.

    Args:
        source: the scan's file or DICOM series.
        predictor: the loaded run.
        out: folder to write to.
        wanted: what to write, and how to predict.
        run: the run's folder, for the record.
        known: how its doubt becomes a predicted Dice.

    Returns:
        The record, as in NAME.json.

    Raises:
        UserError: a scan that can't be read, or one unlike those that the run was trained on.
    """
    start = time.monotonic()
    scan = scans.read(source, wanted.series)
    for option, asked in (
        ("--dicom-seg", wanted.dicom_seg),
        ("--rtstruct", wanted.rtstruct),
        ("--secondary-capture", wanted.secondary_capture),
    ):
        if asked and scan.series is None:
            raise UserError(f"{source.path}: {option} needs a DICOM series, this is none.")
    target = out / f"{source.name}{_ending(source, wanted)}"
    label_volumes.check_grid(target, scan.volume.geometry, scan.like)
    bounds = find_bounds(source.name, scan, predictor.rule, list(predictor.channels))
    images = ScanSlices(scan, bounds, predictor.axes, predictor.spacing_mm)
    warnings = [*scan.warnings, *_shape_hints(scan, predictor.axes), *bounds.warnings]
    for warning in warnings:
        say(f"warning: {source.name}: {warning}")
    out.mkdir(parents=True, exist_ok=True)
    labels, unsure = _label(source.name, images, predictor, out, wanted)
    geometry, chosen = scan.volume.geometry, labels[wanted.stage]
    restored = restore_labels(chosen, geometry, predictor.axes)
    unlike = _unlike_training(images, chosen, predictor)
    for warning in unlike.sentences:
        say(f"warning: {source.name}: {warning}")
    warnings += unlike.sentences
    label_volumes.write_labels(target, restored, geometry, scan.like)
    if wanted.overlay:
        # drawing takes longer to import than predicting a slice
        from pipeline.reporting.overlay import write_overlay

        path = out / f"{source.name}_overlay.png"
        write_overlay(path, images, chosen, predictor.names, images.pixel_spacing, predictor.axes)
    if scan.series is not None:
        warnings += _write_dicom(out / source.name, scan, bounds, restored, predictor, wanted)
    review = out / f"{source.name}_review.csv"
    _write_review(review, labels, unsure.expected, images, predictor.names)
    record = _record(source, scan, bounds, restored, predictor, wanted, warnings)
    record |= {"run": str(run), "label_map": target.name}
    signs = unsure.doubt.signs()
    record["predicted_dice"] = known.of_scan(predictor.names, signs, unlike.organs)
    _show_predicted_dice(record, unlike)
    record["seconds"] = round(time.monotonic() - start, 2)
    write_json(out / f"{source.name}.json", record)
    return record


def _label(
    name: str,
    images: ScanSlices,
    predictor: Predictor,
    out: Path,
    wanted: Wanted,
) -> tuple[dict[str, NDArray[np.uint8]], Uncertainty]:
    """Predict the wanted stage, and both stages for the review list if the model has two.

    Writes the wanted stage's probabilities meanwhile, if they are asked for.

    Returns:
        Stage to labels (slices, rows, columns); how unsure those of the wanted stage are.
    """
    reviewed = TWO_STAGES if set(TWO_STAGES) <= set(predictor.stages) else ()
    stages = tuple(dict.fromkeys((wanted.stage, *reviewed)))
    _, *pixel = images.pixel_spacing
    unsure = Uncertainty.of(images.grid[0], len(predictor.names), (pixel[0], pixel[1]))
    labels = {stage: np.empty(images.grid, np.uint8) for stage in stages}
    predictions = predict_batches(
        predictor.ready.model,
        images,
        stages,
        batch_size=wanted.batch,
        device=predictor.device,
        forward=partial(averaged, forward=predictor.forward) if wanted.tta else predictor.forward,
        resizing=predictor.ready.resizing,
        probabilities=wanted.stage,
    )
    with ExitStack() as stack:
        bar = stack.enter_context(steps(name, -(-images.grid[0] // wanted.batch)))
        probabilities = None
        if wanted.probabilities:
            # in a folder of their own: other programs would take them for label maps
            path = out / PROBABILITIES / f"{name}.nii.gz"
            geometry = images.scan.volume.geometry
            probabilities = stack.enter_context(
                open_probabilities(
                    path, predictor.ready.model.classes, images.grid, geometry, images.axes
                )
            )
        for batch in predictions:
            batch.put(labels)
            shares = batch.probabilities
            assert shares is not None, "predict_batches was asked for them"
            unsure.add(batch.first, batch.labels, wanted.stage, shares, STEPS)
            if probabilities is not None:
                probabilities.add(batch)
            bar.advance(f"{batch.first + len(batch)} slices")
    return labels, unsure


def _known(predictor: Predictor, wanted: Wanted) -> Known:
    """The model's calibration, or why it says nothing of what is wanted."""
    if wanted.tta:
        return Known(None, "calibrated are predictions without --tta")
    if predictor.others:
        return Known(None, "calibrated are predictions of one model alone")
    identity = predictor.identity
    folder = Path(identity["folder"])
    weights = identity["sha256"][MODEL_FILES[1]]
    return calibration.find([folder, *evaluations(folder)], weights, wanted.stage)


def _show_predicted_dice(record: dict[str, Any], unlike: Unlike) -> None:
    """A table of a scan's organs with their predicted Dice; nothing where there is none.

    Args:
        record: of the scan.
        unlike: what is unlike training in the scan and its labels.
    """
    said = record["predicted_dice"]
    if "organs" not in said:
        return
    share = f"{said['level']:.0%} interval"
    table = Table(title=f"{record['scan']}: predicted Dice", title_justify="left", box=None)
    table.add_column("organ")
    for name in ("ml", "Dice", share):
        table.add_column(name, justify="right")
    for organ, found in said["organs"].items():
        if "dice" in found:
            shown = (f"{found['dice']:.2f}", f"{found['low']:.2f} to {found['high']:.2f}")
        else:
            shown = ("-", found["cannot_say"])
        # Text, since an organ's name may look like markup
        table.add_row(Text(organ), f"{record['millilitres'][organ]:.1f}", *shown)
    console.print(table)
    text = f"{record['scan']}: predicted Dice is calibrated on {said['calibrated_on']}"
    if unlike.organs:
        text += (
            f"; intervals begin at 0 where labels are unlike training's: {', '.join(unlike.organs)}"
        )
    if unlike.scan:
        text += "; the scan is unlike those of training (warnings above), so believe it less"
    say(text)


def _unlike_training(images: ScanSlices, labels: NDArray[np.uint8], predictor: Predictor) -> Unlike:
    """What is unlike training in a scan and its labels."""
    found = Unlike([], [], {})
    if predictor.usual is not None:
        slices = ((images[index : index + 1][0], part) for index, part in enumerate(labels))
        found = compare(
            predictor.usual,
            predictor.names,
            slices,
            images.pixel_spacing,
            predictor.axes,
            list(predictor.channels),
        )
    if predictor.identity["data_set"] == Phantom.name:
        found.scan.insert(0, SYNTHETIC)
    return found


def _check_targets(sources: Sequence[Source], out: Path, wanted: Wanted) -> None:
    """Refuse an output folder in which a label map would replace a scan."""
    scan_paths = {path.resolve() for source in sources for path in source.paths}
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
    scan: Scan,
    bounds: Bounds,
    labels: NDArray[np.uint8],
    predictor: Predictor,
    wanted: Wanted,
) -> list[str]:
    """Write the DICOM objects that are asked for, `path` and an ending each; what isn't possible
    is a warning with the reason.
    """
    if not (wanted.dicom_seg or wanted.rtstruct or wanted.secondary_capture):
        return []
    from pipeline.imaging.dicom import segmentation, structures

    series, geometry = scan.series, scan.volume.geometry
    assert series is not None, "these are written for DICOM series alone"
    names, warnings = predictor.names, []
    segment = partial(segmentation.write_dicom_seg, labels=labels, series=series, names=names)
    outline = partial(
        structures.write_rtstruct, labels=labels, geometry=geometry, series=series, names=names
    )
    capture = partial(_write_capture, scan=scan, bounds=bounds, labels=labels, names=names)
    for asked, what, ending, write in (
        (wanted.dicom_seg, "DICOM Segmentation", "seg.dcm", segment),
        (wanted.rtstruct, "RT Structure Set", "rtstruct.dcm", outline),
        (wanted.secondary_capture, "Secondary Capture", "sc", capture),
    ):
        warning = segmentation.obstacle(labels, series, what) if asked else None
        if asked and warning is None:
            try:
                write(path.with_name(f"{path.name}.{ending}"))
            except UserError as error:
                warning = str(error)
        if warning is not None:
            say(f"warning: {path.name}: {warning}")
            warnings.append(warning)
    return warnings


def _write_capture(
    folder: Path, scan: Scan, bounds: Bounds, labels: NDArray[np.uint8], names: Sequence[str]
) -> None:
    """Pictures of the slices from the first to the last that shows an organ, as DICOM.

    Args:
        folder: to write.
        scan: of a DICOM series.
        bounds: of the values that become black and white.
        labels: (column, row, slice).
        names: organs.
    """
    # drawing takes longer to import than predicting a slice
    from pipeline.imaging.colours import organ_colours
    from pipeline.imaging.dicom.secondary_capture import write_secondary_capture
    from pipeline.reporting.overlay import tinted

    colours, array = organ_colours(names), channels.each(scan.volume.array)[0]
    low, high = channels.many(bounds.low)[0], channels.many(bounds.high)[0]

    def picture(index: int) -> NDArray[np.uint8]:
        unit = intensity.to_unit(array[:, :, index].T, low, high)
        return np.round(tinted(unit, labels[:, :, index].T, colours) * 255).astype(np.uint8)

    showing = np.flatnonzero(labels.any(axis=(0, 1)))
    present = [names[label - 1] for label in np.unique(labels) if label]
    derivation = (
        f"Organs as labelled by H-SAM {__version__} ({', '.join(present)}) over the image, whose "
        f"values {low:g} to {high:g} are black to white. Not for diagnostic use."
    )
    assert scan.series is not None, "written for DICOM series alone"
    chosen = range(int(showing[0]), int(showing[-1]) + 1)
    write_secondary_capture(folder, picture, chosen, scan.series, derivation[:LONGEST_TEXT])


def _write_review(
    path: Path,
    labels: dict[str, NDArray[np.uint8]],
    expected: ExpectedError,
    images: ScanSlices,
    names: Sequence[str],
) -> None:
    """The review list as CSV; `labels` and `expected` as `_label` returns them."""
    two = None
    if set(TWO_STAGES) <= set(labels):
        two = Pairs.of(labels["coarse"], labels["fine"], len(names))
    geometry = images.scan.volume.geometry
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    begins = BEGINS[images.axes[0]]
    # counted from the feet unless the name says otherwise
    writer.writerow(("slice" if begins == "feet" else f"slice_from_{begins}", *REVIEW))
    for row in review_rows(path.name, expected, names, two):
        place = source_slice(geometry, images.axes, row["slice"])
        area, share = row["expected_mm2"], row["disagreement"]
        middle = (row["slice"], row["row"], row["column"])
        voxel = source_voxel(geometry, images.axes, middle, images.grid[1:])
        writer.writerow(
            (
                *(row["slice"], place, row["first"], row["last"], row["organ"]),
                " ".join(str(index) for index in voxel),
                f"{area:.1f}",
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
        "sha256": sha256_of(scan.files),
        "shape": list(geometry.shape),
        "spacing_mm": list(geometry.spacing),
        "orientation": geometry.orientation,
        "slice_axes": predictor.axes,
        **({"channels": list(predictor.channels)} if predictor.channels else {}),
        "low": bounds.low,
        "high": bounds.high,
        "stage": wanted.stage,
        "tta": wanted.tta,
        "model": predictor.identity,
        **({"averaged_with": list(predictor.others)} if predictor.others else {}),
        "precision": predictor.ready.precision.record(),
        "labels": {name: index for index, name in enumerate(predictor.names, 1)},
        "voxels": dict(zip(predictor.names, counts[1:], strict=True)),
        "millilitres": {
            name: round(count * voxel_ml, 3)
            for name, count in zip(predictor.names, counts[1:], strict=True)
        },
        "warnings": list(warnings),
    }


def _report(
    started: datetime,
    predictor: Predictor,
    wanted: Wanted,
    done: Sequence[dict[str, Any]],
    failed: dict[str, str],
) -> dict[str, Any]:
    """The record of a call: what it was made with, and those of its scans."""
    shared = ("model", "averaged_with", "precision", "stage", "tta", "labels", "run")
    return {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now().astimezone() - started).total_seconds(), 2),
        "device": device_name(predictor.device),
        **provenance({}),
        **{name: done[0][name] for name in shared if done and name in done[0]},
        "scans": [{k: v for k, v in record.items() if k not in shared} for record in done],
        "failed": failed,
    }


def _print_failed(failed: dict[str, str]) -> None:
    if not failed:
        return
    table = Table("scan", "what failed and why", box=None, header_style="bold")
    for name, reason in failed.items():
        table.add_row(name, reason)
    # a log file has no width to fit into
    console.print(table, width=None if console.is_terminal else 10_000, soft_wrap=True)
