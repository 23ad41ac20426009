"""Every knob of the pipeline as typed models: one block a stage, plus `base` and `dataset`.

The models are the one source of the parameters' meaning: `params.yaml`'s comments,
`workflow/schemas/params.schema.json` and the messages for bad values all come from them.
They set no defaults: those stand in `defaults.yaml`, and all of them in `params.yaml`, where a
reader and DVC can see them.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from hsam.backbones import BACKBONES, HUGGING_FACE
from hsam.registry import MODELS
from pipeline.core.files import digest
from pipeline.core.registry import CONVENTIONS, DATASETS

Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
# one of a registry's names: a new line there is allowed here, in the schema and in the help
if TYPE_CHECKING:
    DataSetName: TypeAlias = str
    ModelName: TypeAlias = str
    BackboneName: TypeAlias = str
    Convention: TypeAlias = str
else:
    DataSetName = Literal[tuple(DATASETS)]
    ModelName = Literal[tuple(MODELS)]
    BackboneName = Literal[tuple(BACKBONES)] | Annotated[str, Field(pattern=f"^{HUGGING_FACE}.")]
    Convention = Literal[CONVENTIONS]
CaseId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


Seed = Annotated[int, Field(ge=0, lt=2**32)]


@dataclass(frozen=True)
class _Mark:
    """Stands in a field's annotation and says something of the parameter; it checks no value."""

    meaning: str


# what a trial of the search doesn't depend on: such values change, and finished trials stay valid
OUTSIDE_TRIALS = _Mark("says how the work is done, or something that a trial does in its own way")

# how the work is cut into jobs: the value changes, and what was made stays valid
OUTSIDE_RESULTS = _Mark("says how the work is done, nothing that comes out of it")


class Block(BaseModel):
    """A block of parameters: unknown keys are errors, values keep their YAML type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Base(Block):
    seed: Seed = Field(description="seeds the random choices of every stage without its own seed")


class Phantom(Block):
    cases: int = Field(ge=3, le=1000, description="volumes to make; the last 30% are the test set")
    seed: Seed = Field(description="seeds the anatomy and the noise")
    size: int = Field(ge=32, le=512, multiple_of=16, description="in-plane side, voxels")


MOST_CHANNELS = 3  # an image encoder's inputs
Channel = Annotated[str, Field(min_length=1)] | Annotated[int, Field(ge=0)]


class Dataset(Block):
    name: DataSetName = Field(description=" | ".join(DATASETS))
    root: str = Field(min_length=1, description="folder of the raw volumes")
    cases: list[CaseId] | None = Field(
        description="case ids to use; null: every case found under root"
    )
    channels: list[Channel] | None = Field(
        min_length=1,
        description="up to three channels to use, by name or number; null: the only one there is",
    )
    labels: dict[str, int | str | list[int | str]] | None = Field(
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


def _one_or_several(value: Any) -> str:
    return "several" if isinstance(value, list) else "one"


Intensities = Annotated[
    Annotated[Intensity, Tag("one")]
    | Annotated[list[Intensity], Field(min_length=2), Tag("several")],
    Discriminator(_one_or_several),
]


GROUP_RULE = "expected a regular expression with a group in brackets, such as ^(patient[0-9]+)_"
AXES_RULE = "expected three letters, one each of R and L, A and P, S and I, such as SPL"


def is_axes(text: Any) -> bool:
    """Whether a text names axes of slices: one letter each of R and L, A and P, S and I."""
    pairs = ("RL", "AP", "SI")
    letters = isinstance(text, str) and len(text) == len(pairs)
    return letters and all(sum(letter in text for letter in pair) == 1 for pair in pairs)


def _checked_axes(text: str) -> str:
    if not is_axes(text):
        raise PydanticCustomError("axes", AXES_RULE)
    return text


Axes = Annotated[str, AfterValidator(_checked_axes)]


class Prepare(Block):
    axes: Axes | None = Field(
        description="directions in which slices, rows, columns grow, such as SAL; null: SPL"
    )
    intensity: Intensities | None = Field(
        description="{kind: window | percentile, low, high} -> [0, 1], or a list of one for each "
        "channel; null: the data set's own"
    )
    spacing_mm: Annotated[float, Field(gt=0)] | None = Field(
        description="in-plane spacing to resample to, mm; null: as acquired"
    )
    batch: Annotated[Annotated[int, Field(ge=1)] | None, OUTSIDE_RESULTS] = Field(
        description="cases that a job of Snakemake prepares; null: by their number and size"
    )


def _checked_group(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise PydanticCustomError(
            "group", "not a regular expression ({why})", {"why": str(error)}
        ) from None
    if not groups:
        raise PydanticCustomError("group", GROUP_RULE)
    return text


class Split(Block):
    seed: Seed | None = Field(description="seeds the draws of subjects and slices; null: base.seed")
    test: Share | list[CaseId] | None = Field(
        description="test subjects: a share, ids, or null for the data set's canonical ones"
    )
    folds: Annotated[int, Field(ge=2, le=100)] | None = Field(
        description="cross-validation: parts that all subjects are dealt into; null: none"
    )
    fold: Annotated[int, Field(ge=0)] | None = Field(
        description="the part that is tested on, from 0; null: none"
    )
    group: Annotated[str, AfterValidator(_checked_group)] | None = Field(
        description="pattern whose first group is the subject in a case id; null: a case is one"
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
    seed: Seed | None = Field(description="seeds weights, order and augmentation; null: base.seed")
    model: ModelName = Field(description=f"{' | '.join(MODELS)} (docs/model.md)")
    model_options: dict[str, int | float | list[int]] | None = Field(
        description="what one model alone has; null: its defaults ("
        + "; ".join(
            f"{name}: {', '.join(model.options)}" for name, model in MODELS.items() if model.options
        )
        + ")"
    )
    backbone: BackboneName = Field(
        description=" | ".join(
            name if backbone.pretrained else f"{name} (not pretrained)"
            for name, backbone in BACKBONES.items()
        )
        + f" | {HUGGING_FACE}FOLDER (Hugging Face form, docs/model.md); without SAM's weights or a "
        "GPU: litemedsam, or model: unet (docs/training.md)"
    )
    sam_checkpoint: str | None = Field(
        description="weights of the backbone: a file | auto (the published one, `hsam weights`); "
        "null: random weights"
    )
    start: str | None = Field(
        description="run whose trained parts the training starts from: a name or folder; null: none"
    )
    train_encoder: bool = Field(
        description="train the whole encoder (not only LoRA): for backbones without SAM weights"
    )
    image_size: int = Field(
        ge=32, le=1024, multiple_of=16, description="side the slices are resized to, pixels"
    )
    encoder_size: Annotated[int, Field(ge=32, le=1024)] | None = Field(
        description="side at which the encoder sees the slices, pixels; null: image_size"
    )
    normalise: bool = Field(
        description="give the encoder the value range of its pretraining; false: [0, 1]"
    )
    lora_rank: int = Field(ge=0, le=256, description="rank of LoRA in q and v; 0: none")
    mask_attention: bool = Field(description="learnable mask cross attention (Table 11)")
    pixel_decoder: bool = Field(description="hierarchical pixel decoder (Table 11)")
    cm_attention: bool = Field(description="class-balanced mask-guided self attention (Table 11)")
    gate: Literal["spatial", "constant"] = Field(
        description="CMAttn's gate: spatial (the paper's) | constant (the published code's)"
    )
    embedding_noise: float = Field(
        ge=0,
        le=1,
        description="noise on stage 2's embedding in training, share of the embedding's range",
    )
    epochs: int = Field(ge=1, le=100_000)
    batch_size: int = Field(
        ge=1, le=4096, description="slices per optimizer step, over all devices and passes"
    )
    micro_batch: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = Field(
        description="slices per device and forward pass; auto: as many as fit in its memory"
    )
    devices: Annotated[int, OUTSIDE_TRIALS] = Field(
        ge=1, le=64, description="GPUs, or processes where there is none"
    )
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
    encoder_rate: float = Field(
        gt=0, le=100, description="times that rate for LoRA, or for a trained encoder"
    )
    pretrained_rate: float = Field(
        gt=0, le=100, description="times that rate for decoder parts that start pretrained"
    )
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
    workers: Annotated[int, OUTSIDE_TRIALS] = Field(
        ge=0, le=256, description="processes that read slices; 0: the main one"
    )
    cache_mib: Annotated[int, OUTSIDE_TRIALS] = Field(
        ge=0, description="memory for slices that are read again, MiB; 0: none"
    )
    augment: Augment = Field(description="random transforms, one resampling (docs/training.md)")
    cache_embeddings: int = Field(
        ge=0,
        le=1000,
        description="augmented views of each slice that a frozen encoder embeds once; 0: none",
    )
    validate_every: Annotated[int, OUTSIDE_TRIALS] = Field(
        ge=0, description="epochs between validations; 0: never"
    )
    keep: Annotated[Literal["last", "best"], OUTSIDE_TRIALS] = Field(
        description="weights to publish: last | best (validation)"
    )
    snapshots: Annotated[int, OUTSIDE_TRIALS] = Field(
        ge=0, le=100, description="models kept at as many equal shares of the epochs; 0: none"
    )
    early_stopping: Annotated[Annotated[int, Field(ge=1)] | None, OUTSIDE_TRIALS] = Field(
        description="validations without a better one before the end; null: all epochs"
    )
    log_every: Annotated[int, OUTSIDE_TRIALS] = Field(
        ge=1, description="steps between two looks at the loss"
    )
    checkpoint_minutes: Annotated[float, OUTSIDE_TRIALS] = Field(
        ge=0, description="minutes between checkpoints; 0: one after every step"
    )
    tensorboard: Annotated[bool, OUTSIDE_TRIALS, OUTSIDE_RESULTS] = Field(
        description="write TensorBoard's files while it runs (extra tensorboard)"
    )


# the rules of a space know `train` and its model: `pipeline.core.params.search_space`
Space = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {"type": "object", "additionalProperties": {"type": ["array", "object", "null"]}}
    ),
]


class Search(Block):
    seed: Seed | None = Field(description="seeds what the trials try; null: base.seed")
    trials: Annotated[int, OUTSIDE_TRIALS] = Field(
        ge=0, le=10_000, description="0: no search, train as set above"
    )
    hours: Annotated[Annotated[float, Field(gt=0)] | None, OUTSIDE_TRIALS] = Field(
        description="hours of trials, of each worker, after which none begins; null: all trials"
    )
    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        description="epochs of each trial; null: train.epochs"
    )
    space: Space = Field(
        description="key of train: choices [1, 4] | {low, high, log} | null (docs/training.md)"
    )
    pruner: Literal["none", "median", "hyperband"] = Field(
        description="stops bad trials early: none | median | hyperband"
    )
    validate_every: int = Field(
        ge=0, description="epochs between validations of a trial; 0: at its end alone"
    )
    workers: Annotated[int, OUTSIDE_TRIALS] = Field(
        ge=1, le=1000, description="Snakemake jobs that share the trials, each with its GPU"
    )
    storage: Annotated[str | None, OUTSIDE_TRIALS] = Field(
        description="null: a file in the run folder; or a URL of PostgreSQL, MySQL, SQLite, Redis"
    )


class Evaluate(Block):
    stage: Literal["mean", "coarse", "fine"] = Field(
        description="logits to score: mean of both decoders | coarse | fine"
    )
    batch_size: int = Field(ge=1, le=4096, description="slices per forward pass")
    convention: Convention = Field(
        description="how empty organs count (docs/evaluation.md): "
        "paper | strict | nnunet | both_empty_one"
    )
    audit: bool = Field(
        description="also score train.snapshots: what choosing weights on the test set would gain"
    )


class Report(Block):
    slices: int = Field(ge=0, le=200, description="pictures of test slices")
    budget_mib: int = Field(
        ge=0, le=500, description="MiB for the case browser's slices; 0: no case browser"
    )
    beside: str | None = Field(
        description="run to show beside, with its scores: a name or folder; null: none"
    )


class Params(Block):
    base: Base
    dataset: Dataset
    prepare: Prepare
    split: Split
    train: Train
    search: Search
    evaluate: Evaluate
    report: Report

    def seed_of(self, block: Literal["split", "train", "search"]) -> int:
        """The block's own seed, or `base.seed` where it has none."""
        own: int | None = getattr(self, block).seed
        return self.base.seed if own is None else own

    def trial_epochs(self) -> int:
        """Epochs of each trial of the search."""
        return self.train.epochs if self.search.epochs is None else self.search.epochs


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
    """The values that the results of `stage` depend on, by key path, as plain JSON types."""
    values = {}
    for path in READS[stage]:
        value: Any = params
        for key in path.split("."):
            value = getattr(value, key)
        values[path] = _without(value, OUTSIDE_RESULTS)
    return values


def trial_params(params: Params) -> dict[str, dict[str, Any]]:
    """The values that a trial of the search depends on, as plain JSON types, seeds and epochs
    resolved.

    What the search gives a value of its own, its epochs, is left out of `train`. The values of what
    is searched stay: the first trial tries them.
    """
    search, train = (_without(block, OUTSIDE_TRIALS) for block in (params.search, params.train))
    search["space"] = {key: given for key, given in search["space"].items() if given is not None}
    del train["epochs"]
    search["epochs"] = params.trial_epochs()
    search["seed"], train["seed"] = params.seed_of("search"), params.seed_of("train")
    return {"search": search, "train": train}


def _without(block: Block, mark: _Mark) -> dict[str, Any]:
    """The block's values without those whose field has the mark."""
    fields = type(block).model_fields
    marked = {key for key, field in fields.items() if mark in field.metadata}
    return block.model_dump(mode="json", exclude=marked)


def params_digest(params: Params) -> str:
    """SHA-256 over every value."""
    return digest(params.model_dump(mode="json"))
