"""A study's file: arms laid over presets, seeds, draws, and the numbers to compare with.

Where a value of a run stands, from the top down: its seeds, its arm, the study's `protocol`, what
it is run on (`--on`), its `params`, its presets, the packaged defaults. On phantoms the study's
`phantoms` have a say too, below and above the arm.
"""

import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from pipeline.core.errors import UserError
from pipeline.core.home import WORKFLOW
from pipeline.core.params.blocks import Block, Params, Seed
from pipeline.core.params.load import Layer, layers, read_yaml, resolve

# of the working directory, or where it has none, as with --directory, of the installation
HOME = Path("workflow") if Path("workflow", "studies").is_dir() else WORKFLOW
STUDIES, PRESETS = HOME / "studies", HOME / "presets"
PREDICTIONS = "predictions"  # the one key of an arm that is scored, never trained
PLACES = ("study", "draw", "seed", "fold")  # what its folder's name may hold, in braces
PHANTOMS = "phantoms"  # the preset that a study's small twin is run on
NAME = r"^[a-z0-9][a-z0-9_-]*$"
Name = Annotated[str, Field(pattern=NAME)]
Overlay = dict[str, Any]
Seeds = Annotated[list[Seed], Field(min_length=1)]
Folds = Annotated[int, Field(ge=2, le=100)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Numbers(Block):
    """What was published of an arm."""

    dice: Percent = Field(description="mean over the organs, %")
    hd95: Annotated[float, Field(ge=0)] | None = Field(default=None, description="mean, voxels")
    organs: dict[str, Percent] = Field(default={}, description="organ: Dice, %")


class Quoted(Block):
    """A row of another's table."""

    method: str = Field(min_length=1)
    dice: Percent
    hd95: Annotated[float, Field(ge=0)] | None = None
    note: str = Field(default="", description="what it was trained with")
    source: str = Field(min_length=1, description="where the number stands")


class Twin(Block):
    """The study's small twin on phantoms."""

    params: Overlay = Field(default={}, description="laid over the preset, below the arms")
    arms: dict[Name, Overlay] = Field(default={}, description="laid over the arm of that name")
    seeds: Seeds | None = Field(default=None, description="null: the study's first two")
    draws: Seeds | None = Field(default=None, description="null: the study's first")
    folds: Folds | None = Field(default=None, description="null: as many as the study's")


class Curve(Block):
    """How a score grows along a parameter that the arms differ in."""

    along: str = Field(description="the parameter, such as split.slices")
    by: str | None = Field(
        default=None,
        description="a curve for each value of this one, such as train.model; null: one",
    )

    @field_validator("along", "by")
    @classmethod
    def _is_a_key(cls, key: str | None) -> str | None:
        block, _, name = (key or "").partition(".")
        fields = Params.model_fields.get(block)
        if key is None or (fields and name in getattr(fields.annotation, "model_fields", ())):
            return key
        raise ValueError("expected a parameter, such as split.slices")


class StudyFile(Block):
    """The content of `workflow/studies/NAME.yaml`."""

    title: str = Field(min_length=1)
    question: str = Field(default="", description="what the study answers, in one sentence")
    source: str | None = Field(default=None, description="where the published numbers stand")
    presets: list[str] = Field(default=[], description="of workflow/presets, in their order")
    params: Overlay = Field(default={}, description="laid over the presets")
    protocol: Overlay = Field(
        default={}, description="below the arms, and above what the study is run on"
    )
    arms: dict[Name, Overlay] = Field(
        min_length=1, description="arm: what it alone sets, or predictions: FOLDER of another tool"
    )
    seeds: Seeds = Field(description="values of train.seed")
    draws: Seeds = Field(description="values of split.seed: which slices are drawn")
    folds: Folds | None = Field(
        default=None, description="run over folds 0 to K-1, so that every case is tested; null: not"
    )
    reference: Name | None = Field(default=None, description="the arm that others are compared to")
    published: dict[Name, Numbers] = Field(default={}, description="arm: what was published")
    quoted: list[Quoted] = Field(default=[])
    figures: list[Literal["models", "predictions", "stages"]] = Field(
        default=[], description="figures 6, 7 and 8 of the supplement"
    )
    curve: Curve | None = None
    phantoms: Twin = Field(default=Twin())


class Collection(Block):
    """Several studies as one, such as all of the paper's."""

    title: str = Field(min_length=1)
    question: str = ""
    studies: Annotated[list[Name], Field(min_length=1)]


def names(folder: Path = STUDIES) -> list[str]:
    """The studies that there are, sorted."""
    return sorted(path.stem for path in Path(folder).glob("*.yaml"))


def read(name: str, folder: Path = STUDIES) -> StudyFile | Collection:
    """A study's file, checked.

    Raises:
        UserError: no such study, or all that is wrong with its file.
    """
    path = Path(folder) / f"{name}.yaml"
    if not re.match(NAME, name) or not path.is_file():
        there = ", ".join(names(folder)) or "none"
        raise UserError(f"{name}: no such study; in {folder} there are: {there}.")
    values = read_yaml(path)
    try:
        if "studies" in values:
            return Collection.model_validate(values)
        found = StudyFile.model_validate(values)
    except ValidationError as error:
        raise UserError([f"{path}: {_sentence(item)}" for item in error.errors()]) from None
    if problems := _unknown_arms(found) + _bad_predictions(found) + _bad_folds(found):
        raise UserError([f"{path}: {problem}" for problem in problems])
    return found


def params_of(
    name: str,
    study: StudyFile,
    arm: str,
    draw: int,
    seed: int,
    on: Sequence[str] = (),
    folder: Path = STUDIES,
    fold: int | None = None,
) -> Params:
    """The parameters of one run.

    Args:
        name, study: the study's, and its file.
        arm, draw, seed: of the run.
        on: presets or parameter files that the study is run on, laid over in this order.
        folder: of the study's file.
        fold: that is tested on, from 0; None: of a study without folds.

    Raises:
        UserError: values that are not allowed, all at once.
    """
    where = f"{Path(folder) / name}.yaml"
    found = [layer for preset in study.presets for layer in layers(preset_file(preset, folder))]
    found.append(Layer(f"{where}: params", study.params))
    found += [layer for preset in on for layer in layers(preset_file(preset, folder))]
    twin = study.phantoms if PHANTOMS in on else Twin()
    found.append(Layer(f"{where}: protocol", study.protocol))
    found.append(Layer(f"{where}: phantoms.params", twin.params))
    if predictions_of(study, arm, on) is None:
        found.append(Layer(f"{where}: arms.{arm}", study.arms[arm]))
        found.append(Layer(f"{where}: phantoms.arms.{arm}", twin.arms.get(arm, {})))
    split: Overlay = {"seed": draw}
    if fold is not None:
        split |= {"folds": folds_of(study, on), "fold": fold}
        if not isinstance(_last(found, "split", "test"), list):
            split["test"] = None  # a share gives way to the folds; cases by name don't
    run = {"train": {"seed": seed}, "split": split}
    return resolve([*found, Layer(f"{where}: seeds, draws and folds", run)])


def _last(found: Sequence[Layer], block: str, key: str) -> Any:
    """The value that a key of a block has in the uppermost layer that sets it; None: in none."""
    blocks = (layer.values.get(block) for layer in reversed(found))
    return next((b[key] for b in blocks if isinstance(b, dict) and key in b), None)


def folds_of(study: StudyFile, on: Sequence[str] = ()) -> int | None:
    """The number of folds that each draw and seed is run over; None: there are none."""
    return (study.phantoms.folds if PHANTOMS in on else None) or study.folds


def predictions_of(study: StudyFile, arm: str, on: Sequence[str] = ()) -> str | None:
    """The folder of an arm that is scored alone, with PLACES in braces; None: it is trained."""
    twin = study.phantoms.arms.get(arm, {}) if PHANTOMS in on else {}
    found: str | None = (study.arms[arm] | twin).get(PREDICTIONS)
    return found


def preset_file(preset: str, folder: Path = STUDIES) -> Path:
    """The parameter file that a preset's name, or a path that ends in .yaml, stands for."""
    if preset.endswith((".yaml", ".yml")):
        return Path(preset)
    return Path(folder).parent / PRESETS.name / f"{preset}.yaml"


def _unknown_arms(study: StudyFile) -> list[str]:
    """What names an arm that there is not."""
    named: Mapping[str, list[str]] = {
        "reference": [] if study.reference is None else [study.reference],
        "published": list(study.published),
        "phantoms.arms": list(study.phantoms.arms),
    }
    return [
        f"{key}: there is no arm {arm}; the arms are {', '.join(study.arms)}."
        for key, arms in named.items()
        for arm in arms
        if arm not in study.arms
    ]


def _bad_folds(study: StudyFile) -> list[str]:
    """A small twin's folds where the study has none."""
    if study.folds is None and study.phantoms.folds is not None:
        return ["phantoms.folds: the study has no folds of its own; set folds, or remove them."]
    return []


def _bad_predictions(study: StudyFile) -> list[str]:
    """What is wrong with arms that are scored alone."""
    problems = []
    given = [(f"arms.{arm}", arm, values) for arm, values in study.arms.items()]
    given += [(f"phantoms.arms.{arm}", arm, values) for arm, values in study.phantoms.arms.items()]
    for where, arm, values in given:
        scored = PREDICTIONS in study.arms[arm]
        if scored != (PREDICTIONS in values) or (scored and len(values) > 1):
            problems.append(
                f"{where}: {', '.join(values) or 'nothing'}: an arm has either {PREDICTIONS} "
                "alone, which are scored, or parameters, with which it is trained."
            )
        elif scored and (why := _no_place(values[PREDICTIONS])):
            problems.append(f"{where}.{PREDICTIONS}: {values[PREDICTIONS]!r}: {why}.")
    return problems


def _no_place(folder: Any) -> str | None:
    """Why a value names no folder of predictions; None: it does."""
    if not isinstance(folder, str) or not folder:
        return "expected the path of a folder"
    known = " ".join(f"{{{name}}}" for name in PLACES)
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(folder) if name is not None]
    except ValueError as error:
        return f"{str(error).lower()}; what a name may hold in braces is {known}"
    unknown = [name for name in names if name not in PLACES]
    return f"{{{unknown[0]}}} is unknown; there are {known}" if unknown else None


def _sentence(item: Any) -> str:
    """One of pydantic's refusals."""
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"{key}: missing; add it."
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key; remove it or mend its name."
    return f"{key}: {item['input']!r} is not allowed: {item['msg'][0].lower()}{item['msg'][1:]}."
