"""Every knob of the pipeline as typed models: one block a stage, plus `base` and `dataset`.

The models are the one source of the parameters' meaning: `params.yaml`'s comments,
`workflow/schemas/params.schema.json` and the messages for bad values all come from them.
They set no defaults: every key stands in `params.yaml`, where a reader and DVC can see it.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from pipeline.core.errors import UserError
from pipeline.core.files import digest, write_text

Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Convention = Literal["paper", "strict", "nnunet", "both_empty_one"]
CaseId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Block(BaseModel):
    """A block of parameters: unknown keys are errors, values keep their YAML type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Base(Block):
    seed: int = Field(ge=0, lt=2**32, description="seeds every random choice of every stage")


class Phantom(Block):
    cases: int = Field(ge=3, le=1000, description="volumes to make; the last 30% are the test set")
    seed: int = Field(ge=0, lt=2**32, description="seeds the anatomy and the noise")
    size: int = Field(ge=32, le=512, multiple_of=16, description="in-plane side, voxels")


class Dataset(Block):
    name: Literal["phantom", "synapse", "la", "promise12", "nnunet"] = Field(
        description="phantom | synapse | la | promise12 | nnunet"
    )
    root: str = Field(min_length=1, description="folder of the raw volumes")
    cases: list[CaseId] | None = Field(
        description="case ids to use; null: every case found under root"
    )
    labels: dict[str, int | list[int]] | None = Field(
        description="organ: raw label or labels; null: the data set's own map"
    )
    other_labels: Literal["error", "background"] | None = Field(
        description="labels outside the map: error | background; null: the data set's own rule"
    )
    phantom: Phantom = Field(description="read by the phantom data set alone")


class Window(Block):
    kind: Literal["window"]
    low: float = Field(description="lower edge, in the volume's own units (CT: HU)")
    high: float = Field(description="upper edge")


class Percentile(Block):
    kind: Literal["percentile"]
    low: float = Field(ge=0, le=100, description="lower percentile of the volume, %")
    high: float = Field(ge=0, le=100, description="upper percentile of the volume, %")


Intensity = Annotated[Window | Percentile, Field(discriminator="kind")]


class Prepare(Block):
    intensity: Intensity | None = Field(
        description="{kind: window | percentile, low, high} -> [0, 1]; null: the data set's own"
    )
    spacing_mm: Annotated[float, Field(gt=0)] | None = Field(
        description="in-plane spacing to resample to, mm; null: as acquired"
    )


class Split(Block):
    test: Share | list[CaseId] | None = Field(
        description="test subjects: a share, ids, or null for the data set's canonical ones"
    )
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="share of the training subjects held out for validation"
    )
    subjects: Annotated[int, Field(ge=1)] | list[CaseId] | None = Field(
        description="labelled training subjects: a number, ids, or null for all"
    )
    slices: PositiveShare | None = Field(
        description="share of the training slices to keep, over all subjects; null: all"
    )
    only_labelled: bool = Field(description="train on slices that show an organ only")
    list: str | None = Field(
        description="CSV or parquet with columns case, slice, role, in place of all of the above"
    )


Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class Augment(Block):
    rotate: Share = Field(description="share of the slices that are rotated")
    rotation_degrees: float = Field(ge=0, le=180, description="largest rotation, degrees")
    crop: Share = Field(description="share of the others that are cropped and enlarged")
    crop_side: Range = Field(description="[low, high] side of the crop, share of the slice's")
    elastic: Share = Field(description="share of the rest that are deformed")
    elastic_shift: float = Field(
        ge=0, le=0.1, description="standard deviation of the shifts, share of the side"
    )
    elastic_sigma: float = Field(
        ge=0.02, le=1, description="their smoothness: a Gaussian's sigma, share of the side"
    )
    noise: float = Field(
        ge=0, le=1, description="largest standard deviation of noise on [0, 1]; 0: none"
    )
    gamma: float = Field(
        ge=1, le=10, description="largest exponent of the intensities, 1/it the smallest; 1: none"
    )


class Train(Block):
    model: Literal["hsam", "samed", "sam_adapter", "autosam", "unet"] = Field(
        description="hsam | samed | sam_adapter | autosam | unet (docs/model.md)"
    )
    backbone: Literal["vit_tiny", "vit_b", "vit_l", "vit_h"] = Field(
        description="vit_tiny (not pretrained) | vit_b | vit_l | vit_h"
    )
    sam_checkpoint: str | None = Field(
        description="Meta's SAM file for the backbone; null: random weights"
    )
    train_encoder: bool = Field(
        description="train the whole encoder (not only LoRA): for backbones without SAM weights"
    )
    image_size: int = Field(
        ge=32, le=1024, multiple_of=16, description="side the slices are resized to, pixels"
    )
    lora_rank: int = Field(ge=1, le=256, description="rank of LoRA in q and v")
    mask_attention: bool = Field(description="learnable mask cross attention (Table 11)")
    pixel_decoder: bool = Field(description="hierarchical pixel decoder (Table 11)")
    cm_attention: bool = Field(description="class-balanced mask-guided self attention (Table 11)")
    gate: Literal["spatial", "constant"] = Field(
        description="CMAttn's gate: spatial (the paper's) | constant (the published code's)"
    )
    epochs: int = Field(ge=1, le=100_000)
    batch_size: int = Field(
        ge=1, le=4096, description="slices per optimizer step, over all devices and passes"
    )
    micro_batch: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = Field(
        description="slices per device and forward pass; auto: as many as fit in its memory"
    )
    devices: int = Field(ge=1, le=64, description="GPUs, or processes where there is none")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        description="auto (fp32 on a CPU, bf16 or else fp16 on a GPU) | fp32 | bf16 | fp16"
    )
    tf32: bool = Field(description="TensorFloat-32 in float32 products, on GPUs that have it")
    compile: bool = Field(description="torch.compile: slower to start, faster steps")
    gradient_checkpointing: bool = Field(
        description="recompute encoder blocks in the backward pass: less memory, slower"
    )
    sampler: Literal["shuffle", "rare_organ"] = Field(
        description="shuffle | rare_organ (slices with rare organs come more often)"
    )
    learning_rate: float = Field(gt=0, le=1, description="AdamW's, after warm-up")
    weight_decay: float = Field(ge=0, le=1)
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    warmup_iterations: int = Field(ge=0, description="steps of linear warm-up")
    lr_power: float = Field(ge=0, le=10, description="power of the decay after warm-up")
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        description="largest norm of the gradient; null: not clipped"
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        description="decay per step of the weights' moving average; null: the weights themselves"
    )
    dice_weight: Share = Field(description="weight of Dice; the second loss has 1 - dice_weight")
    second_loss: Literal["cross_entropy", "mse"] = Field(description="cross_entropy | mse")
    lambda_start: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="weight of the coarse stage's loss at epoch 0"
    )
    lambda_end_at_zero: bool = Field(
        description="let that weight reach exactly 0 at the last epoch"
    )
    workers: int = Field(ge=0, le=256, description="processes that read slices; 0: the main one")
    cache_mib: int = Field(ge=0, description="memory for decoded slices, MiB; 0: none")
    augment: Augment = Field(description="random transforms, one resampling (docs/training.md)")
    validate_every: int = Field(ge=0, description="epochs between validations; 0: never")
    keep: Literal["last", "best"] = Field(
        description="weights to publish: last | best (validation)"
    )
    early_stopping: Annotated[int, Field(ge=1)] | None = Field(
        description="validations without a better one before the end; null: all epochs"
    )
    log_every: int = Field(ge=1, description="steps between two looks at the loss")
    checkpoint_minutes: float = Field(
        ge=0, description="minutes between checkpoints; 0: one after every step"
    )


class Search(Block):
    trials: int = Field(ge=0, le=10_000, description="0: no search, train as set above")
    epochs: int = Field(ge=1, le=100_000, description="epochs of each trial")
    lora_rank: Annotated[list[Annotated[int, Field(ge=1, le=256)]], Field(min_length=1)] = Field(
        description="ranks to choose from"
    )
    dice_weight: Range = Field(description="[low, high]")
    lambda_start: Range = Field(description="[low, high]")


class Evaluate(Block):
    stage: Literal["mean", "coarse", "fine"] = Field(
        description="logits to score: mean of both decoders | coarse | fine"
    )
    batch_size: int = Field(ge=1, le=4096, description="slices per forward pass")
    convention: Convention = Field(
        description="how empty organs count (docs/evaluation.md): "
        "paper | strict | nnunet | both_empty_one"
    )


class Report(Block):
    slices: int = Field(ge=0, le=200, description="pictures of test slices")


class Params(Block):
    base: Base
    dataset: Dataset
    prepare: Prepare
    split: Split
    train: Train
    search: Search
    evaluate: Evaluate
    report: Report


# The blocks whose change reruns a stage, under both runners and in the name of its run folder.
READS: dict[str, tuple[str, ...]] = {
    "phantom": ("dataset.phantom",),
    "prepare": ("dataset", "prepare"),
    "split": ("base", "split"),
    "search": ("base", "search", "train"),
    "train": ("base", "train"),
    "evaluate": ("evaluate",),
    "report": ("report",),
}


def stage_params(params: Params, stage: str) -> dict[str, Any]:
    """The values that `stage` reads, by key path, as plain JSON types."""
    values = {}
    for path in READS[stage]:
        value: Any = params
        for key in path.split("."):
            value = getattr(value, key)
        values[path] = value.model_dump(mode="json")
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML 1.2 mapping; UserError when the file is missing or not one."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        there = ", ".join(sorted(other.name for other in Path(path).parent.glob("*.yaml")))
        hint = f"; in its folder are {there}" if there else ""
        raise UserError(f"{path}: there is no such parameter file{hint}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as text ({error}).") from None
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        where = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML ({where}).") from None
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a mapping of blocks, found {type(value).__name__}.")
    return value


def overlay(base: dict[str, Any], *changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with every mapping of `changes` laid over it, block by block; lists are replaced."""
    result = dict(base)
    for change in changes:
        for key, value in change.items():
            old = result.get(key)
            both = isinstance(old, dict) and isinstance(value, dict)
            result[key] = overlay(old, value) if both else value
    return result


def validate(values: dict[str, Any], source: str) -> Params:
    """Typed parameters, or a UserError that lists every problem with key path and value."""
    problems = _contradictions(values)
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        problems = _field_problems(error) + problems
    if problems:
        raise UserError([f"{source}: {problem}" for problem in problems])
    return params


def _field_problems(error: ValidationError) -> list[str]:
    """One sentence a key; the refusals of a union's members are joined into one."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for item in error.errors():
        path = ".".join(_key_path(item["loc"]))
        if item["type"] == "missing":
            found, reason = "missing", "add it (params.yaml explains it)"
        elif item["type"] == "extra_forbidden":
            found, reason = f"unknown key (value {item['input']!r})", "remove it or mend its name"
        else:
            found = f"{item['input']!r} is not allowed"
            reason = item["msg"][0].lower() + item["msg"][1:] + _number_hint(item["input"])
        known = reasons.setdefault((path, found), [])
        if reason not in known:
            known.append(reason)
    return [f"{path}: {found}: {', or '.join(why)}." for (path, found), why in reasons.items()]


def _number_hint(value: Any) -> str:
    """YAML 1.1 readers, Snakemake's among them, take 1e-3 for text."""
    try:
        number = float(value) if isinstance(value, str) else None
        return "" if number is None else f" (write {number:.12g}, without quotes)"
    except ValueError:
        return ""


def _key_path(location: tuple[int | str, ...]) -> list[str]:
    """The keys of an error's location, without the names of union members that pydantic adds."""
    model: Any = Params
    keys = []
    for part in location:
        fields = getattr(model, "model_fields", None)
        if fields is not None:
            keys.append(str(part))
            inner = fields[part].annotation if part in fields else None
            model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
        elif isinstance(part, int) or part in ("low", "high", "kind"):
            keys.append(str(part))
    return keys


def _contradictions(values: dict[str, Any]) -> list[str]:
    """Values that are each allowed but not together; a rule is skipped where its keys are bad."""
    problems = []
    for rule in (
        _intensity_order,
        _split_ways,
        _encoder_weights,
        _needs_validation,
        _one_stage,
        _search_ranges,
        _crop_range,
        _validation_slices,
    ):
        try:
            problems += rule(values)
        except (KeyError, TypeError, ValueError):
            continue
    return problems


def _intensity_order(values: dict[str, Any]) -> list[str]:
    rule = values["prepare"]["intensity"]
    if rule is not None and rule["low"] >= rule["high"]:
        return [f"prepare.intensity: low ({rule['low']}) must be below high ({rule['high']})."]
    return []


def _split_ways(values: dict[str, Any]) -> list[str]:
    split = values["split"]
    set_too = [key for key in ("test", "subjects", "slices") if split[key] is not None]
    if split["list"] is not None and set_too:
        names = ", ".join(set_too)
        return [f"split.list: the list names the roles itself; set {names} to null."]
    return []


def _encoder_weights(values: dict[str, Any]) -> list[str]:
    train = values["train"]
    problems = []
    if train["model"] == "unet":
        return []
    if train["backbone"] == "vit_tiny" and train["sam_checkpoint"] is not None:
        problems.append(
            f"train.sam_checkpoint: {train['sam_checkpoint']!r} can't load into vit_tiny, "
            "which has no SAM weights; set it to null or choose another backbone."
        )
    if train["sam_checkpoint"] is None and not train["train_encoder"]:
        problems.append(
            "train.train_encoder: false freezes an encoder whose weights are random "
            "(sam_checkpoint is null); set it to true or name a checkpoint."
        )
    return problems


def _needs_validation(values: dict[str, Any]) -> list[str]:
    train = values["train"]
    wanted = {
        "keep": train["keep"] == "best",
        "early_stopping": train["early_stopping"] is not None,
    }
    if train["validate_every"] > 0:
        return []
    return [
        f"train.{key}: {train[key]} needs validations; set train.validate_every to 1 or more."
        for key, asked in wanted.items()
        if asked
    ]


def _one_stage(values: dict[str, Any]) -> list[str]:
    model, stage = values["train"]["model"], values["evaluate"]["stage"]
    own = {"unet": "fine", "hsam": stage}.get(model, "coarse")
    if stage in ("mean", own):
        return []
    return [f"evaluate.stage: {model} has no {stage} stage; set it to mean, its only one."]


def _search_ranges(values: dict[str, Any]) -> list[str]:
    problems = []
    for name in ("dice_weight", "lambda_start"):
        low, high = values["search"][name]
        if not 0 <= low <= high < 1:
            problems.append(f"search.{name}: [{low}, {high}] is not a range within [0, 1).")
    return problems


def _crop_range(values: dict[str, Any]) -> list[str]:
    low, high = values["train"]["augment"]["crop_side"]
    if not 0 < low <= high <= 1:
        return [f"train.augment.crop_side: [{low}, {high}] is not a range within (0, 1]."]
    return []


def _validation_slices(values: dict[str, Any]) -> list[str]:
    if values["split"]["validation"] > 0 or values["split"]["list"] is not None:
        return []
    return [
        f"{key}: {why}, but split.validation is 0; raise it or set {key} to 0."
        for key, why, wanted in (
            ("search.trials", "trials are scored on validation slices", values["search"]["trials"]),
            (
                "train.validate_every",
                "there is nothing to validate on",
                values["train"]["validate_every"],
            ),
        )
        if wanted > 0
    ]


def load(paths: Sequence[Path]) -> Params:
    """Parameters from one or more YAML files, each laid over the ones before."""
    merged = overlay({}, *(read_yaml(Path(path)) for path in paths))
    return validate(merged, " + ".join(str(path) for path in paths))


def params_digest(params: Params) -> str:
    """SHA-256 over every value."""
    return digest(params.model_dump(mode="json"))


def schema() -> dict[str, Any]:
    """JSON schema of params.yaml; it sets no defaults."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Params.model_json_schema(),
    }


def schema_text() -> str:
    """The exact text of `workflow/schemas/params.schema.json`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def render(params: Params) -> str:
    """YAML text of the parameters with each key's meaning and unit as a comment."""
    writer = YAML()
    writer.width = 200
    writer.indent(mapping=2, sequence=4, offset=2)
    writer.representer.add_representer(
        type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    document = _commented(params)
    for position, name in enumerate(type(params).model_fields):
        if position:
            document.yaml_set_comment_before_after_key(name, before="\n")
    text = io.StringIO()
    writer.dump(document, text)
    # ruamel writes "#" for the blank line that separates two blocks
    return "\n".join("" if line == "#" else line for line in text.getvalue().split("\n"))


def _commented(block: Block) -> CommentedMap:
    result = CommentedMap()
    for name, field in type(block).model_fields.items():
        value = getattr(block, name)
        if isinstance(value, Block) and not isinstance(value, Window | Percentile):
            result[name] = _commented(value)
        else:
            plain = value.model_dump() if isinstance(value, Block) else value
            result[name] = _flow(plain)
        if field.description:
            result.yaml_add_eol_comment(field.description, name, column=32)
    return result


def _flow(value: Any) -> Any:
    if isinstance(value, dict):
        result = CommentedMap({key: _flow(item) for key, item in value.items()})
    elif isinstance(value, list):
        result = CommentedSeq([_flow(item) for item in value])
    else:
        return value
    result.fa.set_flow_style()
    return result


def restore_comments(path: Path) -> None:
    """Rewrite a parameter file, values unchanged, with the comments that DVC's Hydra step drops."""
    text = render(load([path]))
    if Path(path).read_text(encoding="utf-8") != text:
        write_text(path, text)
