"""What more signs of doubt would add to predicted Dice, on the test cases of a trained run.

    python benchmarks/signs.py [--prepared results/prepare] [--split results/split]
        [--model results/train] [--checkpoint FILE] [--every 1] [--threads 1] [--json signs.json]

Each sign is a share, the lower the more doubt, of an organ that was predicted in a case:

- expected, agreement: those that are used (`pipeline/scoring/uncertainty.py`);
- views: mean Dice of the mask and that of each view of `--tta`, seen alone;
- certainty: 1 - the probabilities' entropy within the mask, as a share of the largest;
- volume: how near it is to the range of the training's, 1 within;
- wholeness: share of each slice's largest piece, by area;
- inside: share that doesn't touch the picture's border;
- core: share that isn't on a slice's outline;
- snapshots: mean Dice of the mask and that of each model that was kept during its training, where
  there are any.

Each case is predicted by a fit on the others, as in an evaluation. `--every 5` looks at every fifth
slice.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import machine, report
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, set_num_threads

from hsam.model import SegmentationModel
from pipeline.inference import records, usual
from pipeline.inference.ensemble import answers, share_encoders
from pipeline.inference.trained import load_for_inference
from pipeline.inference.tta import VIEWS, View, warp
from pipeline.inference.usual import Tally
from pipeline.inference.volume import STEPS, forward, model_stages, predict_batches
from pipeline.scoring.predicted_dice import FEWEST, Pair, judged, left_out
from pipeline.scoring.uncertainty import TWO_STAGES, Doubt, Signs, clear, overlaps
from pipeline.shards.case import ShardReader
from pipeline.shards.manifest import Manifest, read_manifest
from pipeline.shards.roles import read_split

USED = ("expected", "agreement")
MORE = ("views", "certainty", "volume", "wholeness", "inside", "core", "snapshots")


@dataclass(frozen=True)
class Shares(Signs):
    """`Signs` and those that aren't used; None: left out."""

    views: float | None
    certainty: float | None
    volume: float | None
    wholeness: float | None
    inside: float | None
    core: float | None
    snapshots: float | None


def seen_in(view: View, model: SegmentationModel, images: Tensor, stages: Sequence[str]) -> Any:
    """Logits of a view of a batch, put back; as `forward`."""
    seen = forward(model, warp(images, view), stages)
    return {stage: warp(logits, view.inverse()) for stage, logits in seen.items()}


def of_each(
    models: Sequence[SegmentationModel], stage: str, _: Any, images: Tensor, names: Sequence[str]
) -> dict[str, Tensor]:
    """Logits of a stage of each model, under its name; as `forward`."""
    found = answers(models, images)
    return {name: answer.logits(stage) for name, answer in zip(names, found, strict=True)}


def dice(a: NDArray[np.uint8], b: NDArray[np.uint8], organs: int) -> NDArray[np.float64]:
    """Of each organ in two label arrays, 0 where neither has it."""
    sizes, shared = overlaps(a, b, organs)
    return 2 * shared / np.maximum(sizes, 1)


def mean_of(found: Sequence[NDArray[np.float64]], place: int) -> float | None:
    """Mean over several predictions of an organ's value; None: there is none of them."""
    return float(np.mean([values[place] for values in found])) if found else None


def shares_of_case(
    case: str,
    manifest: Manifest,
    shards: Path,
    ready: Any,
    snapshots: Sequence[SegmentationModel],
    known: Any,
    every: int,
) -> list[Pair]:
    """The organs that are predicted in a case, with all signs and the true Dice."""
    row, organs = manifest.case(case), manifest.class_names
    images, truth = (
        np.asarray(part)[every // 2 :: every]
        for part in ShardReader(shards / row.shard).read_volume()
    )
    stages = model_stages(ready.model)
    settings = {"device": "cpu", "resizing": ready.resizing}
    labels = {stage: np.empty(truth.shape, np.uint8) for stage in stages}
    doubt, entropy = Doubt(len(organs)), np.zeros(len(organs))
    batches = predict_batches(ready.model, images, stages, probabilities=stages[0], **settings)
    for batch in batches:
        batch.put(labels)
        two = [batch.labels[stage] for stage in TWO_STAGES if stage in stages]
        chosen, shares = batch.labels[stages[0]], batch.probabilities
        doubt.add(chosen, clear(shares, STEPS), STEPS, (two[0], two[1]) if two else None)
        p = shares.astype(np.float32) / STEPS
        of_pixel = -(p * np.log(np.maximum(p, 1e-6))).sum(axis=0) / np.log(len(p))
        entropy += ndimage.sum_labels(of_pixel, chosen, range(1, len(organs) + 1))
    mask = labels[stages[0]]
    in_views, in_snapshots = [], list[NDArray[np.float64]]()
    for view in VIEWS:
        seen = {stages[0]: np.empty(truth.shape, np.uint8)}
        one = partial(seen_in, view)
        for batch in predict_batches(ready.model, images, stages[:1], forward=one, **settings):
            batch.put(seen)
        in_views.append(dice(mask, seen[stages[0]], len(organs)))
    names = [str(number) for number in range(len(snapshots))]
    seen = {name: np.empty(truth.shape, np.uint8) for name in names}
    if snapshots:
        each = partial(of_each, snapshots, stages[0])
        for batch in predict_batches(ready.model, images, names, forward=each, **settings):
            batch.put(seen)
        in_snapshots = [dice(mask, labels, len(organs)) for labels in seen.values()]
    tally = Tally(len(organs), row.spacing_mm)
    for image, part in zip(images, mask, strict=True):
        tally.add(image, part)
    volumes, true = tally.millilitres(row.slices), dice(mask, truth, len(organs))
    pairs = []
    for place, (organ, signs) in enumerate(zip(organs, doubt.signs(), strict=True)):
        if signs is None:
            continue
        own = mask == place + 1
        low, high = known["organs"][organ]["millilitres"]
        area, piece = (np.nan_to_num(tally.slices[:, place, column]) for column in (0, 4))
        rim = [ndimage.binary_erosion(part, border_value=1).sum() for part in own]
        edge = own[:, [0, -1]].sum() + own[:, 1:-1, [0, -1]].sum()
        more = {
            "views": mean_of(in_views, place),
            "certainty": 1 - float(entropy[place] / own.sum()),
            "volume": float(min(1, volumes[place] / low, high / volumes[place])),
            "wholeness": float(piece @ area / area.sum()),
            "inside": 1 - float(edge / own.sum()),
            "core": float(sum(rim) / own.sum()),
            "snapshots": mean_of(in_snapshots, place),
        }
        shares = Shares(signs.expected, signs.agreement, **more)
        pairs.append(Pair(case, organ, shares, float(true[place])))
    return pairs


def only(pairs: Sequence[Pair], names: Sequence[str]) -> list[Pair]:
    """The pairs with some of their signs alone."""
    left = {name: None for name in (*USED, *MORE) if name not in names}
    return [replace(pair, signs=replace(pair.signs, **left)) for pair in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, stage in (("prepared", "prepare"), ("split", "split"), ("model", "train")):
        parser.add_argument(f"--{name}", type=Path, default=Path("results") / stage)
    parser.add_argument("--checkpoint", type=Path, help="weights of a frozen encoder")
    parser.add_argument("--every", type=int, default=1, help="every so many slices")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    arguments = parser.parse_args()
    set_num_threads(arguments.threads)
    manifest = read_manifest(arguments.prepared / "manifest.parquet")
    tested = read_split(arguments.split / "split.parquet").cases["test"]
    if len(tested) <= FEWEST:  # each case is predicted from the others
        parser.error(f"{arguments.split}: expected over {FEWEST} test cases, got {len(tested)}")
    known = usual.recorded(records.read_record(arguments.model))
    ready = load_for_inference(arguments.model, arguments.checkpoint, "cpu")
    snapshots = [
        load_for_inference(folder, arguments.checkpoint, "cpu").model
        for folder in records.earlier(arguments.model).values()
    ]
    share_encoders(snapshots)
    pairs = []
    for case in tested:
        shards = arguments.prepared / "shards"
        pairs += shares_of_case(case, manifest, shards, ready, snapshots, known, arguments.every)
    used, more = (
        [name for name in names if getattr(pairs[0].signs, name) is not None]
        for names in (USED, MORE)
    )
    rows = []
    for names in (used, *([*used, name] for name in more), [*used, *more]):
        found = judged(left_out(only(pairs, names)))
        about = ("mean_absolute_error", "coverage", "mean_width", "spearman")
        rows.append({"signs": ", ".join(names)} | {name: found[name] for name in about})
    cases = len({pair.case for pair in pairs})
    title = f"{cases} test cases, {len(pairs)} pairs of case and organ"
    report({"machine": machine(arguments.threads, "torch"), title: rows}, arguments.json)


if __name__ == "__main__":
    main()
