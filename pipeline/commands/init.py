"""`hsam init`: from a folder of scans and labels to a parameter file with reasons.

Beside it lies a page of what was found in the data.
"""

import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from hsam.backbones import known_weights
from pipeline.core import cpus, files, gpu, weight_files
from pipeline.core.console import duration, say
from pipeline.core.errors import UserError
from pipeline.core.params.load import validate
from pipeline.datasets import check_split, recognise
from pipeline.planning import parameter_file
from pipeline.planning.choices import Machine, Plan, check_encoder, choose
from pipeline.planning.survey import Survey, survey

if TYPE_CHECKING:
    from pipeline.training.forecast import Forecast

MIB = 2**20
# of the choices, for the terminal; the file has all of them
SHOWN = (
    "split.test",
    "split.group",
    "split.slices",
    "train.model",
    "train.backbone",
    "train.image_size",
    "train.epochs",
)


def run(
    folder: Path,
    out: Path,
    *,
    gpus: int,
    encoder: str | None,
    steps: int | None,
    jobs: int,
    as_json: bool,
    fold: int = 0,
    channels: str | None = None,
) -> None:
    """Look at the data, choose parameters, write them.

    Args:
        folder: of one data set.
        out: parameter file to write; must not be there.
        gpus: that trainings may use.
        encoder, steps: in place of the rules' (`pipeline.planning.choices.choose`).
        jobs: processes that read the data.
        as_json: print all of it as JSON instead of lines for people.
        fold: of the data's own cross-validation, where it has one.
        channels: to use of several, names or numbers with commas; None: all of two or three.

    Raises:
        UserError: a file at `out`, or data that can't be used.
    """
    page = out.with_suffix(".html")
    for path in (out, page):
        if path.exists():
            raise UserError(
                f"{path}: is there already, maybe edited by hand; remove it, or name another file "
                "with --out."
            )
    machine = Machine(cpus.usable(), gpus, _encoders())
    check_encoder(encoder, machine)
    dataset = recognise.recognise(folder)
    if channels is not None:
        named = [name.strip() for name in channels.split(",")]
        dataset = dataset.model_copy(update={"channels": named})
    found = survey(dataset, jobs)
    plan = choose(found, machine, encoder, steps, fold)
    # what follows from rules is held to the same rules as what people write
    params = validate(parameter_file.nested(plan.choices), str(out))
    check_split(params)
    device = "cuda" if gpus and gpu.lease(gpus) else "cpu"
    # import PyTorch and matplotlib, which takes longer than refusing a folder
    from pipeline.reporting import fingerprint
    from pipeline.training.forecast import forecast

    expected = forecast(params.train, len(found.organs), plan.slices, device)
    files.write_text(page, fingerprint.render(found, plan, out.name))
    files.write_text(out, parameter_file.text(plan.choices, _head(found, folder, machine)))
    if as_json:
        record = _record(found, plan, expected, out, page)
        print(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        _tell(found, plan, expected, out, page)


def _encoders() -> tuple[str, ...]:
    """Pretrained encoders whose files are here, whole."""
    paths = {name: (weight_files.find(file), file) for name, file in known_weights().items()}
    return tuple(
        name
        for name, (path, file) in paths.items()
        if path is not None and weight_files.damage(path, file) is None
    )


def _head(found: Survey, folder: Path, machine: Machine) -> list[str]:
    device = f"{machine.gpus} GPU" if machine.gpus else f"{machine.cores} CPU cores"
    return [
        f"{found.title}: what `hsam init {folder}` chose for {device}, and why. Edit it freely:",
        "`hsam params --params FILE` checks it and shows every other key, `hsam run FILE` runs it.",
    ]


def _record(
    found: Survey, plan: Plan, expected: "Forecast", out: Path, page: Path
) -> dict[str, Any]:
    return {
        "file": str(out),
        "page": str(page),
        "params": parameter_file.nested(plan.choices),
        "reasons": {choice.key: choice.reason for choice in plan.choices},
        "expected": {
            "training_seconds": round(expected.seconds, 1),
            "memory_mib": round(expected.memory_bytes / MIB),
        },
        "fingerprint": found.as_json(),
    }


def _tell(found: Survey, plan: Plan, expected: "Forecast", out: Path, page: Path) -> None:
    several = f", channels {', '.join(map(str, found.channels))}" if found.channels else ""
    shapes = [tuple(case["shape"]) for case in found.cases]
    spacings = [tuple(case["spacing_mm"]) for case in found.cases]
    modality = "CT" if found.ct else "MR or the like"
    about = f"{len(found.cases)} cases, {modality}, {found.plane} slices{several}"
    print(f"{found.title} ({found.dataset.name}): {about}")
    print(f"  median voxels, x y z: {_middle(shapes)}; median mm: {_middle(spacings)}")
    for organ, volumes in found.volumes_ml().items():
        numbers = sorted(volumes.values())
        spread = (
            f"median {_number(median(numbers))} ml, {_number(numbers[0])} to {_number(numbers[-1])}"
            if numbers
            else "in no case"
        )
        print(f"  {organ}: in {len(numbers)} cases, {spread}")
    for remark in found.remarks():
        print(f"  look at: {remark}")
    print(f"{out}:")
    for choice in plan.choices:
        if choice.key in SHOWN:
            print(f"  {choice.key}: {parameter_file.shown(choice.value)}  # {choice.reason}")
    memory = f"{expected.memory_bytes / MIB:,.0f} MiB beside Python's own"
    print(f"  expected: {duration(expected.seconds)} of training on an idle machine, {memory}")
    print(f"{page}: what was found, with a picture of every case")
    say(f"next: look through {out}, then hsam run {out}")


def _number(value: float) -> str:
    """Three digits, or whole."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _middle(rows: list[tuple[float, ...]]) -> str:
    return " x ".join(_number(median(column)) for column in zip(*rows, strict=True))
