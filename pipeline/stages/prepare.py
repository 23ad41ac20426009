"""Stage prepare: raw volumes to parquet shards, one a case, and a manifest.

Inputs: the raw files of `dataset`. Outputs, below `out`: shards/<case>.parquet, manifest.parquet
(written last), provenance.json and cost.json. Each case is worked on by itself: one volume in
memory a process. Finished shards are kept in runs/<data set>-prepare-<hash>/<case>-<hash>.parquet,
what each cost beside it, where the hashes cover what the shard depends on: label map, intensity
rule, axes, spacing and code; the raw files. A job for a batch of cases leaves them there, and
batches/<batch>.json, which names them.
"""

import filecmp
import shutil
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import datasets
from pipeline.core import cost, files, run_folder, sources
from pipeline.core.console import say
from pipeline.core.cost import Cost
from pipeline.core.errors import UserError, together
from pipeline.core.params.blocks import Params, stage_params
from pipeline.core.pool import over_cases
from pipeline.datasets.base import CanonicalSplit, RawCase
from pipeline.datasets.batches import cases_of
from pipeline.imaging import channels, intensity
from pipeline.imaging.geometry import (
    preparation,
    resample_labels,
    resampled_size,
    to_slices,
)
from pipeline.imaging.intensity import Edges, Rules
from pipeline.shards.case import Prepared, ShardReader, Source, write_shard
from pipeline.shards.manifest import Manifest, ManifestRow, write_manifest
from pipeline.shards.recipe import Recipe

MANIFEST = "manifest.parquet"
BATCHES = "batches"


@dataclass(frozen=True)
class Work:
    """One case to prepare; `folder` is where its shard is kept."""

    raw: RawCase
    recipe: Recipe
    folder: Path


def prepare_case(raw: RawCase, recipe: Recipe) -> Prepared:
    """Prepare one case: read and check it, turn it to slices, clip intensities, map labels.

    Args:
        raw: the case's files.
        recipe: label map, intensity rule, axes and spacing.

    Returns:
        the case as `shards.case.write_shard` takes it.

    Raises:
        UserError: everything that is wrong with the case, one sentence each.
    """
    # imports every library that reads images, which finding a finished shard doesn't need
    from pipeline.datasets import check

    found = check.inspect(raw, recipe.labels, recipe.intensity)
    if found.problems:
        raise UserError(found.problems)
    assert found.image is not None and found.label is not None, "or it was a problem"
    geometry = found.image.geometry
    low, high = intensity.all_bounds(found.image.array, recipe.intensity)
    ends = zip(raw.channel_names, channels.many(low), channels.many(high), strict=True)
    flat = [
        f"{raw.case}: {name}: prepare.intensity leaves no range: {first:g} to {last:g}."
        for name, first, last in ends
        if first >= last
    ]
    if flat:
        raise UserError(flat)
    images = to_slices(found.image.array, geometry, recipe.axes)
    labels = to_slices(recipe.labels.apply(found.label.array), geometry, recipe.axes)
    spacing = geometry.sliced_spacing(recipe.axes)
    if recipe.spacing_mm is not None:
        size = resampled_size(geometry, recipe.axes, recipe.spacing_mm)
        plane = [
            mm * old / new for mm, old, new in zip(spacing[1:], images.shape[1:], size, strict=True)
        ]
        spacing = (spacing[0], *plane)
        # torch takes longer to import than a case takes to prepare
        from pipeline.imaging.resize import resample_images

        images = resample_images(images, size)
        labels = resample_labels(labels, size)
    return Prepared(
        case=raw.case,
        images=stored(images, low, high, recipe.intensity),
        labels=labels,
        spacing_mm=spacing,
        low=low,
        high=high,
        class_names=list(recipe.labels.names),
        source=Source(files.sha256_of(raw.image_files), files.sha256_of(raw.label_files), geometry),
        warnings=tuple(found.warnings),
    )


def stored(
    images: NDArray[Any], low: Edges, high: Edges, rules: Rules
) -> NDArray[np.int16] | NDArray[np.float32]:
    """Images clipped to [low, high], in source units.

    Windowed whole numbers (CT as acquired) are kept as int16, without loss; the rest as float32,
    as are all channels where one of them is.
    """
    clipped = intensity.clip(images, low, high)
    windows = all(rule.kind == "window" for rule in intensity.each_rule(rules))
    if windows and max(map(abs, channels.many(low) + channels.many(high))) < 2**15:
        whole = clipped.astype(np.int16)
        if np.array_equal(whole, clipped):
            return whole
    return clipped


def run(
    params: Params,
    out: Path,
    runs: Path,
    *,
    case: str | None = None,
    batch: str | None = None,
    jobs: int = 1,
) -> None:
    """Prepare a data set, or a part of it.

    Args:
        params: `dataset` and `prepare` are read.
        out: folder of the published outputs.
        runs: folder of the content-addressed working folders.
        case: publish this case's shard only, no manifest. Many processes may do so at once.
        batch: prepare these cases only (`datasets.batches`), so that they are found prepared later;
            the record of the batch is all that is published.
        jobs: processes.

    Raises:
        UserError: with everything wrong with every case; nothing is published then.
    """
    out = Path(out)
    entry = datasets.get(params.dataset)
    cases = entry.find(params.dataset)
    recipe = Recipe.of(params)
    folder = Path(runs) / f"{params.dataset.name}-prepare-{recipe.digest()[:12]}"
    if case is not None:
        if case not in cases:
            raise UserError(
                f"{params.dataset.root}: case {case} is not there; found {', '.join(cases)}."
            )
        cases = {case: cases[case]}
    elif problem := datasets.split_problem(params):
        # said before the hours that preparing may take; the shards are the same for any split
        say(f"prepare: warning: the next stage will refuse this: {problem}")
    work = {name: Work(raw, recipe, folder) for name, raw in cases.items()}
    if batch is not None:
        work = {name: work[name] for name in cases_of(batch, list(work))}
        shards = _prepared(work, jobs)
        record = {"shards": [path.relative_to(runs).as_posix() for path in shards.values()]}
        files.write_json(out / BATCHES / f"{batch}.json", record)
        say(f"prepare: cases {batch} of {params.dataset.name}, kept in {folder}")
        return
    shards = _prepared(work, jobs)
    for warning in together({name: ShardReader(path).warnings for name, path in shards.items()}):
        say(f"warning: {warning}")
    targets = {out / "shards" / f"{name}.parquet": path for name, path in shards.items()}
    stale = [] if case is not None else _stray(out / "shards", set(targets))
    differ = [target for target, path in targets.items() if not _same(path, target)]
    if differ or stale:
        # a manifest must never stand beside shards that it doesn't describe
        (out / MANIFEST).unlink(missing_ok=True)
    for target in differ:
        with files.atomic_path(target) as temporary:
            shutil.copyfile(targets[target], temporary)
    for path in stale:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if case is None:
        _finish(params, out, recipe, shards, entry.canonical(params.dataset))
        say(f"prepare: {len(shards):,} cases of {params.dataset.name} in {out}; next: hsam split")
    else:
        say(f"prepare: case {case} of {params.dataset.name} in {out}")


def _prepared(work: Mapping[str, Work], jobs: int) -> dict[str, Path]:
    """Case to shard in the working folder, of all cases; those that aren't there are prepared."""
    shards = _kept_shards(work, jobs)
    pending = {name: item for name, item in work.items() if name not in shards}
    if pending:
        made, problems = over_cases(keep_shard, pending, jobs, "prepare")
        if problems:
            raise UserError(problems)
        shards |= made
    elif work:
        say(f"prepare: already done in {next(iter(work.values())).folder}")
    return {name: shards[name] for name in work}


def keep_shard(work: Work) -> Path:
    """Path of the case's shard in the working folder; prepares the case unless it is whole."""
    from pipeline.datasets import check

    if missing := check.missing_files(work.raw):
        raise UserError(missing)
    path = _place(work)
    if not _is_whole(path):
        begun = time.monotonic()
        prepared = prepare_case(work.raw, work.recipe)
        # before the shard: what is found whole has a cost
        Cost.of(time.monotonic() - begun, "cpu").write(path.parent, _cost_name(path))
        write_shard(path, prepared)
    return path


def _kept_shards(work: Mapping[str, Work], jobs: int) -> dict[str, Path]:
    """Case to shard of those that were prepared before; files are hashed in `jobs` threads."""

    def kept(item: Work) -> Path | None:
        try:
            path = _place(item)
        except UserError:
            return None  # what is wrong with a raw file is said where its case is prepared
        return path if _is_whole(path) else None

    with ThreadPoolExecutor(jobs) as pool:
        found = dict(zip(work, pool.map(kept, work.values()), strict=True))
    return {case: path for case, path in found.items() if path is not None}


def _place(work: Work) -> Path:
    """Where the case's shard is kept: its name holds the hash of the raw files."""
    raw = work.raw
    source = files.digest([files.sha256_of(raw.image_files), files.sha256_of(raw.label_files)])
    return work.folder / f"{raw.case}-{source[:12]}.parquet"


def _cost_name(shard: Path) -> str:
    """Of the file beside a kept shard that says what its case cost."""
    return f"{shard.stem}.cost.json"


def _is_whole(shard: Path) -> bool:
    """Whether the shard is there as it was written, and what it cost."""
    try:
        ShardReader(shard).verify()
    except UserError:
        return False
    return Cost.read(shard.parent, _cost_name(shard)) is not None


def manifest_row(case: str, shard: Path, canonical: CanonicalSplit) -> ManifestRow:
    """What the manifest says of a case, from its shard alone."""
    reader = ShardReader(shard)
    source = reader.source
    low, high = (channels.many(edge)[0] for edge in reader.bounds)
    return ManifestRow(
        case=case,
        shard=f"{case}.parquet",
        shard_sha256=files.sha256(shard),
        image_sha256=source.image_sha256,
        label_sha256=source.label_sha256,
        shape=reader.shape,
        spacing_mm=reader.spacing_mm,
        source_shape=source.geometry.shape,
        source_affine=tuple(source.geometry.affine.ravel().tolist()),
        orientation=source.geometry.orientation,
        low=low,
        high=high,
        slices=len(reader),
        counts=tuple(reader.counts.sum(0).tolist()),
        role=canonical.role(case),
        warnings=reader.warnings,
    )


def _finish(
    params: Params,
    out: Path,
    recipe: Recipe,
    shards: Mapping[str, Path],
    canonical: CanonicalSplit,
) -> None:
    """Publish provenance, cost and manifest; all stay as they are when the manifest is the same."""
    rows = tuple(manifest_row(case, path, canonical) for case, path in shards.items())
    manifest = Manifest(
        params.dataset.name,
        list(recipe.labels.names),
        intensity.record(recipe.intensity),
        preparation(recipe.axes, recipe.spacing_mm, recipe.channels),
        rows,
    )
    target, provenance = out / MANIFEST, out / run_folder.PROVENANCE
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / MANIFEST
        write_manifest(new, manifest)
        if _same(new, target) and provenance.is_file() and (out / cost.NAME).is_file():
            return
    target.unlink(missing_ok=True)
    key = {
        "stage": "prepare",
        "params": stage_params(params, "prepare"),
        "inputs": {row.case: [row.image_sha256, row.label_sha256] for row in rows},
        "code": sources.stage_digest("prepare", sources.chosen("prepare", params)),
    }
    files.write_json(provenance, run_folder.provenance(key))
    costs = (Cost.read(path.parent, _cost_name(path)) for path in shards.values())
    Cost.in_turn(part for part in costs if part is not None).write(out)
    write_manifest(target, manifest)


def _same(first: Path, second: Path) -> bool:
    return second.is_file() and filecmp.cmp(first, second, shallow=False)


def _stray(folder: Path, wanted: set[Path]) -> list[Path]:
    """Shards of cases that are gone, and what a killed process left behind."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path not in wanted and (path.suffix == ".parquet" or ".parquet-" in path.name)
    )
