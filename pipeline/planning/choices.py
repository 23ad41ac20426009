"""Parameters for a data set and a machine, each with the reason for it.

The rules stand in docs/first-model.md, the measurements behind them in docs/training.md.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from pipeline.core import weight_files
from pipeline.core.errors import UserError, few
from pipeline.core.params.blocks import Percentile, Window
from pipeline.planning.survey import AXES, THICK, Survey

TEST_SHARE = 0.2  # of the cases, where the literature has no split for them
FEWEST_CASES = 2  # one to learn from, one to test on
# slices up to this side are small: enlarged for an encoder, they lose to a U-Net from scratch
SMALL_SIDE = 64
# share of the slices that show an organ, from which empty ones are worth their time
ORGAN_SHARE = 0.25
SPREAD = 2.0  # of voxel sides in plane over the cases, from which they are made alike
# training slices that are embedded on a CPU, about a tenth of Synapse or four volumes of LA
CPU_SLICES = 200
MOST_CACHE_MIB = 1024
WINDOW_STEP = 5  # HU
# ids of several scans of a patient: patient001_frame01, sub-01_ses-2, A12-visit1
GROUP = r"^(.+?)[_-](?:frame|ses|session|visit|time|tp|scan|run)[_-]?[0-9]+"
# the first folder, or the first two, on the way to a scan, by which its id begins
FOLDERS = (r"^([^_]+)", r"^([^_]+_[^_]+)")
UNET = "unet"


@dataclass(frozen=True)
class Choice:
    """One parameter.

    Attributes:
        key: with its block, such as "train.epochs".
        value: as YAML has it.
        reason: for people, in a few words.
    """

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Plan:
    """What was chosen.

    Attributes:
        choices: in the order of the blocks.
        slices: that are learned from, about.
    """

    choices: tuple[Choice, ...]
    slices: int


@dataclass(frozen=True)
class Machine:
    """What trains.

    Attributes:
        cores: that this process may use.
        gpus: that it may use.
        encoders: pretrained ones whose files of weights are here.
    """

    cores: int
    gpus: int
    encoders: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained on a kind of device.

    Attributes:
        sides: in pixels, that it is trained at.
        batch_size: slices a step.
        learning_rate: of AdamW.
        warmup: steps.
        steps: of a training, at the largest of the sides.
        most_steps: at smaller sides, whose steps cost less.
        crop_side: of the augmentation.
        settings: further keys of `train`, each with its reason.
    """

    sides: tuple[int, ...]
    batch_size: int
    learning_rate: float
    warmup: int
    steps: int
    most_steps: int
    crop_side: tuple[float, float]
    settings: tuple[tuple[str, Any, str], ...] = ()

    @property
    def embeds_once(self) -> bool:
        """Whether a training reads embeddings that were computed before."""
        return any(key == "cache_embeddings" and value for key, value, _ in self.settings)


_MILD, _PAPER = (0.6, 1.0), (0.2, 0.8)
_FROZEN = (
    ("lora_rank", 0, "a frozen encoder, whose embeddings can be kept"),
    ("embedding_noise", 0.0, "measured: the published 0.2 drowns such embeddings"),
    (
        "cache_embeddings",
        4,
        "augmented views of each slice, embedded once",
    ),
)
_LORA = (("lora_rank", 4, "the paper's"), ("cache_embeddings", 0, "LoRA changes the encoder"))
# model or encoder -> on a CPU, on a GPU; None: too slow there
RECIPES: dict[str, tuple[Recipe | None, Recipe]] = {
    UNET: (
        Recipe((64, 128), 16, 1e-3, 50, 400, 1200, _MILD),
        Recipe((64, 128, 256), 16, 1e-3, 50, 4000, 4000, _MILD),
    ),
    "litemedsam": (
        Recipe((128,), 16, 1e-3, 50, 240, 240, _MILD, _FROZEN),
        Recipe((128, 256), 16, 1e-3, 250, 4200, 4200, _PAPER, _LORA),
    ),
    "vit_b": (None, Recipe((224, 512), 32, 2.5e-3, 250, 2100, 2100, _PAPER, _LORA)),
}
ENCODERS = ("vit_b", "litemedsam")  # in the order of preference


def check_encoder(wanted: str | None, machine: Machine) -> None:
    """Refuse an encoder that can't be had here; None stands for the rules' own.

    Raises:
        UserError: an unknown name, no weights, or none that a CPU trains in a day.
    """
    if wanted is None or wanted == UNET:
        return
    if wanted not in RECIPES:
        raise UserError(f"--encoder: expected one of {', '.join(RECIPES)}, found {wanted}.")
    if wanted not in machine.encoders:
        how = weight_files.how_to_get(wanted)
        raise UserError(f"--encoder {wanted}: its weights aren't here; {how}.")
    if RECIPES[wanted][bool(machine.gpus)] is None:
        raise UserError(f"--encoder {wanted}: takes days without a GPU; choose litemedsam or unet.")


def choose(
    survey: Survey, machine: Machine, wanted: str | None, steps: int | None, fold: int = 0
) -> Plan:
    """Parameters for these data on this machine.

    Args:
        survey: of the data.
        machine: what trains.
        wanted: a key of RECIPES, in place of the one that the rules take; None: theirs.
        steps: of the training, in place of the budget; None: the budget.
        fold: of the data's own cross-validation, where it has one.

    Raises:
        UserError: too few cases, a fold that isn't there, or as `check_encoder`.
    """
    check_encoder(wanted, machine)
    if len(survey.cases) < FEWEST_CASES:
        raise UserError(
            f"{survey.dataset.root}: found {len(survey.cases)} case with a label; expected at "
            f"least {FEWEST_CASES}, one to learn from and one to test on."
        )
    axes, prepared = _prepare(survey)
    learner, recipe, model = _model(survey, machine, wanted, axes)
    test, split = _split(survey, fold)
    slices, amount = _amount(survey, axes, test, recipe)
    choices = (
        *_data(survey),
        *prepared,
        *split,
        *amount,
        *model,
        *_schedule(survey, axes, recipe, learner, slices, steps),
        *_reading(survey, machine, axes, recipe, slices),
        *_augmentation(recipe),
        Choice("search.trials", 0, "no search; it needs validation cases (split.validation)"),
    )
    return Plan(choices, slices)


def _data(survey: Survey) -> list[Choice]:
    data = survey.dataset
    found = [
        Choice(
            "dataset.name", data.name, f"what the files are; {len(survey.cases)} labelled cases"
        ),
        Choice("dataset.root", data.root, "where they are"),
    ]
    if survey.channels:
        reason = "what is learned from, in this order; pictures show the first"
        found.append(Choice("dataset.channels", survey.channels, reason))
    if data.labels is not None:
        reason = "values found in the label volumes; give them the organs' names"
        return [*found, Choice("dataset.labels", data.labels, reason)]
    return [
        *found,
        Choice("dataset.labels", None, f"the data set's own: {', '.join(survey.organs)}"),
    ]


def _prepare(survey: Survey) -> tuple[str, list[Choice]]:
    axes = AXES["axial"] if survey.benchmark else AXES[survey.plane]
    if survey.benchmark:
        axes_reason = "axial slices, as the literature has them"
    elif axes == AXES["axial"]:
        axes_reason = f"axial slices: no other axis is {THICK} times as coarse"
    else:
        axes_reason = f"{survey.plane} slices: across the coarsest axis of most cases"
    sides = survey.in_plane_mm(axes)
    finest, coarsest = f"{min(sides):.3g}", f"{max(sides):.3g}"
    if max(sides) > SPREAD * min(sides):
        spacing: float | None = round(median(sides), 2)
        spacing_reason = f"{finest} to {coarsest} mm in plane: all get the median"
    else:
        spacing = None
        span = finest if finest == coarsest else f"{finest} to {coarsest}"
        spacing_reason = f"{span} mm in plane: alike enough"
    return axes, [
        Choice("prepare.axes", None if axes == AXES["axial"] else axes, axes_reason),
        _intensity(survey),
        Choice("prepare.spacing_mm", spacing, spacing_reason),
    ]


def _intensity(survey: Survey) -> Choice:
    key = "prepare.intensity"
    if len(survey.rules) > 1:
        return _each_intensity(survey)
    rule = survey.rules[0]
    if survey.benchmark:
        unit = "HU" if rule.kind == "window" else "%"
        text = f"the {rule.kind} of the literature, {rule.low:g} to {rule.high:g} {unit}"
        return Choice(key, None, text)
    if not survey.ct:
        if flat := [c["case"] for c in survey.cases if not _has_range(c, rule)]:
            whole = {"kind": "percentile", "low": 0.0, "high": 100.0}
            return Choice(key, whole, f"nearly all voxels are alike in {few(flat, 2)}: no clipping")
        return Choice(
            key, None, f"no units: percentiles {rule.low:g} and {rule.high:g} of each scan"
        )
    shown = [found["labelled"] for found in survey.cases if found["labelled"]]
    low = WINDOW_STEP * math.floor(median(c["0.5%"] for c in shown) / WINDOW_STEP)
    high = WINDOW_STEP * math.ceil(median(c["99.5%"] for c in shown) / WINDOW_STEP)
    window = {"kind": "window", "low": float(low), "high": float(max(high, low + WINDOW_STEP))}
    return Choice(
        key, window, "CT: HU of the labelled voxels, percentiles 0.5 and 99.5, median case"
    )


def _each_intensity(survey: Survey) -> Choice:
    """The rule of each of several channels: the data set's, or no clipping."""
    rules, open_ones = [], []
    for name, rule, cases in zip(
        survey.channels, survey.rules, map(survey.of_channel, range(len(survey.rules))), strict=True
    ):
        whole = rule.kind == "percentile" and not all(_has_range(c, rule) for c in cases)
        rules.append(
            {"kind": "percentile", "low": 0.0, "high": 100.0} if whole else rule.model_dump()
        )
        open_ones += [name] if whole else []
    if open_ones:
        text = f"nearly all voxels are alike in {few(map(str, open_ones))}: no clipping there"
        return Choice("prepare.intensity", rules, text)
    said = "; ".join(
        f"{name} {rule.kind} {rule.low:g} to {rule.high:g}"
        for name, rule in zip(survey.channels, survey.rules, strict=True)
    )
    return Choice("prepare.intensity", None, f"by each channel's modality: {said}")


def _has_range(found: Mapping[str, Any], rule: Window | Percentile) -> bool:
    """Whether the rule's percentiles of a case differ, as far as its fingerprint tells."""
    measured = found["percentiles"]
    low, high = measured.get(f"{rule.low:g}%"), measured.get(f"{rule.high:g}%")
    return low is None or high is None or bool(low < high)


def _split(survey: Survey, fold: int) -> tuple[int, list[Choice]]:
    """How many test cases there are, and the choices of the block `split`."""
    folds = () if survey.test else survey.folds
    if fold and fold >= len(folds):
        said = f"0 to {len(folds) - 1}" if folds else "none: the data set names no folds"
        raise UserError(f"--fold {fold}: expected one of {said}.")
    count = len(survey.cases)
    pattern, patients = _patients(survey)
    value: Any
    if folds:
        test, value = len(folds[fold]), list(folds[fold])
        which = f"fold {fold} of the {len(folds)} in splits_final.json (--fold)"
        reason = f"{which}; never learned from"
    elif survey.test and len(survey.test) < count:
        test, value = len(survey.test), None
        reason = f"the {test} test cases that the data set names"
    else:
        test, value = max(1, math.floor(TEST_SHARE * count + 0.5)), TEST_SHARE
        about = f"about {test}" if patients else test
        reason = f"{about} of {count} cases, drawn by base.seed; never learned from"
    return test, [
        Choice("split.test", value, reason),
        _group(survey, pattern, patients, folds[fold] if folds else ()),
        Choice("split.validation", 0.0, "nothing is tuned, so every other case is learned from"),
    ]


def _patients(survey: Survey) -> tuple[str | None, dict[str, str]]:
    """A pattern of the cases' ids, and case to patient by it.

    None and empty where ids don't tell of several scans of one patient, or files say that there are
    none. Where files tell, the pattern parts no patient, and tells as many apart as ids can.
    """
    known = survey.patients
    if len(set(known.values())) == len(survey.cases):
        return None, {}
    best: tuple[str | None, dict[str, str]] = (None, {})
    for pattern in (GROUP, *(FOLDERS if _tells(known) else ())):
        found = {case["case"]: re.match(pattern, case["case"]) for case in survey.cases}
        patients = {case: match[1] for case, match in found.items() if match is not None}
        count = len(set(patients.values()))
        several = len(patients) == len(found) and 1 < count < len(patients)
        parted = _tells(known) and len({(known[c], p) for c, p in patients.items()}) > len(
            set(known.values())
        )
        if several and not parted and count > len(set(best[1].values())):
            best = pattern, patients
    return best


def _tells(known: Mapping[str, str]) -> bool:
    """Whether files tell patients apart: some that remove names give all of them one."""
    return len(set(known.values())) > 1


def _group(
    survey: Survey, pattern: str | None, patients: Mapping[str, str], tested: Collection[str]
) -> Choice:
    """How cases of a patient stay together, unless the cases to test on part them already."""
    key = "split.group"
    if not patients and 1 < len(set(survey.patients.values())) < len(survey.cases):
        count = len(set(survey.patients.values()))
        return Choice(
            key, None, f"only {count} patients, and no pattern of the ids tells whose: set one"
        )
    if not patients:
        tell = "files" if survey.patients else "names"
        return Choice(key, None, f"each case is a patient, as far as the {tell} tell")
    sides = ({patients[case] for case in patients if (case in tested) == side} for side in (0, 1))
    if tested and (parted := set.intersection(*sides)):
        reason = f"scans of {few(sorted(parted))} are on both sides of this fold"
        return Choice(key, None, reason)
    count = len(set(patients.values()))
    return Choice(key, pattern, f"{count} patients, each on one side of the split")


def _amount(survey: Survey, axes: str, test: int, recipe: Recipe) -> tuple[int, list[Choice]]:
    """About how many slices the model is trained on, and the choices."""
    sliced = survey.sliced(axes)
    share = (len(sliced) - test) / len(sliced)
    everything = sum(slices for slices, *_ in sliced)
    showing = sum(shown for *_, shown in sliced)
    only = showing < ORGAN_SHARE * everything
    about = max(1, round(share * (showing if only else everything)))
    empty = "empty ones are left out" if only else "empty ones teach where organs end"
    shows = f"{100 * showing / everything:.0f}% of the slices show an organ: {empty}"
    kept, reason = None, f"all of about {about:,}"
    if recipe.embeds_once and about > CPU_SLICES:
        kept = float(f"{CPU_SLICES / about:.2g}")
        reason = f"about {CPU_SLICES} of {about:,}, over all cases: what a CPU embeds in minutes"
        about = round(kept * about)
    return about, [
        Choice(
            "split.subjects",
            None,
            f"all {len(sliced) - test} training cases; a number takes as many",
        ),
        Choice("split.slices", kept, reason),
        Choice(
            "split.only_labelled",
            only,
            shows,
        ),
    ]


def _model(
    survey: Survey, machine: Machine, wanted: str | None, axes: str
) -> tuple[str, Recipe, list[Choice]]:
    """A key of RECIPES, its recipe, and the choices of model and encoder."""
    place = bool(machine.gpus)
    usable = [name for name in ENCODERS if name in machine.encoders and RECIPES[name][place]]
    side = _in_plane(survey, axes)
    if wanted is not None:
        learner, reason = wanted, "as asked for"
    elif not survey.ct and side <= SMALL_SIDE:
        learner = UNET
        reason = f"MR slices of {side} voxels, where pretraining brought nothing"
    elif usable:
        learner, reason = usable[0], "pretrained, and its weights are here"
    else:
        learner = UNET
        reason = "no pretrained weights for this machine (`hsam weights`); from scratch"
    recipe = RECIPES[learner][place]
    assert recipe is not None
    if learner == UNET:
        return learner, recipe, [Choice("train.model", UNET, reason)]
    return (
        learner,
        recipe,
        [
            Choice("train.model", "hsam", "coarse and fine decoder behind a pretrained encoder"),
            Choice("train.backbone", learner, reason),
            Choice(
                "train.sam_checkpoint", "auto", "the published file, which `hsam weights` finds"
            ),
            Choice("train.train_encoder", False, "few labels would spoil it"),
            *(Choice(f"train.{key}", value, why) for key, value, why in recipe.settings),
        ],
    )


def _schedule(
    survey: Survey, axes: str, recipe: Recipe, learner: str, slices: int, wanted: int | None
) -> list[Choice]:
    longest = _in_plane(survey, axes)
    side = next((s for s in recipe.sides if s >= longest), recipe.sides[-1])
    budget = wanted or min(recipe.most_steps, round(recipe.steps * (recipe.sides[-1] / side) ** 2))
    a_epoch = math.ceil(slices / recipe.batch_size)
    epochs = max(1, round(budget / a_epoch))
    warmup = min(recipe.warmup, epochs * a_epoch // 5)
    whose = "asked for" if wanted else "the budget"
    return [
        Choice(
            "train.image_size",
            side,
            f"slices are {longest} voxels long; of {_or(recipe.sides)}",
        ),
        Choice(
            "train.epochs",
            epochs,
            f"about {epochs * a_epoch:,} steps of {a_epoch} an epoch; {whose}: {budget:,}",
        ),
        Choice("train.batch_size", recipe.batch_size, "smaller ones show few organs at a time"),
        Choice("train.micro_batch", "auto", "as many of them at once as memory allows"),
        Choice("train.learning_rate", recipe.learning_rate, "as measured for this model"),
        Choice("train.warmup_iterations", warmup, "at most a fifth of the steps"),
        Choice("train.validate_every", 0, "without validation cases; the test cases tell"),
    ]


def _reading(
    survey: Survey, machine: Machine, axes: str, recipe: Recipe, slices: int
) -> list[Choice]:
    if recipe.embeds_once:
        return [
            Choice("train.workers", 0, "embeddings lie ready"),
            Choice("train.cache_mib", MOST_CACHE_MIB, "validation's embeddings, if there is any"),
        ]
    pixel_bytes = 1 + (2 if survey.ct else 4) * len(survey.rules)
    pixels = median(rows * columns for _, rows, columns, _ in survey.sliced(axes))
    need = math.ceil(slices * pixels * pixel_bytes * 1.25 / 2**20)
    cache = min(MOST_CACHE_MIB, 64 * 2 ** max(0, math.ceil(math.log2(need / 64))))
    whole = need <= cache
    workers = 0 if whole or not machine.gpus else min(4, machine.cores)
    fits = f"all decoded slices, {need:,} MiB" if whole else f"the first of {need:,} MiB of slices"
    who = (
        "slices are decoded once" if whole else "the CPU is busy" if not workers else "decode ahead"
    )
    return [
        Choice("train.workers", workers, who),
        Choice("train.cache_mib", cache, fits),
    ]


def _augmentation(recipe: Recipe) -> list[Choice]:
    low, high = recipe.crop_side
    mild = recipe.crop_side == _MILD
    return [
        Choice("train.augment.rotate", 0.45, "the paper's"),
        Choice("train.augment.crop", 0.75, "the paper's"),
        Choice(
            "train.augment.crop_side",
            [low, high],
            "milder than the paper's: fewer steps" if mild else "the paper's",
        ),
        Choice("train.augment.elastic_shift", 0.008, "the paper's"),
    ]


def _in_plane(survey: Survey, axes: str) -> int:
    """The longer side of a slice in voxels, median over the cases."""
    return round(median(max(rows, columns) for _, rows, columns, _ in survey.sliced(axes)))


def _or(sides: tuple[int, ...]) -> str:
    *first, last = map(str, sides)
    return f"{', '.join(first)} or {last} px" if first else f"{last} px alone"
