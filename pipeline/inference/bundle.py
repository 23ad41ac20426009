"""A trained model as a MONAI bundle: a folder that MONAI's runner and MONAI Label's servers take.

    configs/metadata.json    what the model is, with the packages that it needs
    configs/inference.json   how MONAI builds the network, reads scans and writes label maps
    configs/logging.conf     what its runner prints
    models/model.pt          all weights, as a state dict of tensors alone
    docs/README.md           the model's card

Paths are relative to the folder. The configuration names parts in `inference.bundle_parts`, so that
a bundle needs H-SAM installed; `import hsam_pipeline` makes them known.

Source: https://docs.monai.io/en/stable/mb_specification.html
"""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hsam.model import SegmentationModel
from hsam.registry import MODELS
from hsam.version import __version__
from pipeline.core.errors import UserError
from pipeline.core.files import sha256, write_json, write_text
from pipeline.core.run_folder import MODEL_FILES
from pipeline.datasets.phantom import Phantom
from pipeline.imaging.channels import recorded
from pipeline.inference import records
from pipeline.inference.card import MADE_UP, RESEARCH, backbone_name, card, what
from pipeline.inference.titles import model_title

CONFIG, METADATA = "configs/inference.json", "configs/metadata.json"
LOGGING = "configs/logging.conf"
WEIGHTS, README = "models/model.pt", "docs/README.md"
EXTRA = "bundle"  # of `hsam`, with what MONAI's runner needs besides
PACKAGES = {"fire": "0.7.1", "pytorch-ignite": "0.5.5"}  # of that extra
PARTS = "pipeline.inference.bundle_parts"
VERSION = "1.0.0"  # of a bundle; the weights' SHA-256 tells two of a name apart
SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
CODE = ("$", "@", "%")  # what MONAI takes for code or a reference where a text begins with it
RUN = f"python -m monai.bundle run --config_file {CONFIG} --dataset_dir SCANS --output_dir LABELS"
LOGGED = """[loggers]
keys=root

[handlers]
keys=console

[formatters]
keys=plain

[logger_root]
level=INFO
handlers=console

[handler_console]
class=StreamHandler
level=INFO
formatter=plain
args=(sys.stdout,)

[formatter_plain]
format=%(levelname)s: %(message)s
"""


def write(
    folder: Path,
    model_folder: Path,
    record: Mapping[str, Any],
    model: SegmentationModel,
    *,
    name: str,
    stage: str,
    batch: int,
) -> None:
    """Write a bundle into an empty folder.

    Args:
        folder: to fill.
        model_folder: of the model's files.
        record: the content of its model.json.
        model: loaded, its LoRA not merged.
        name: of the bundle.
        stage: whose labels it gives: "mean", "coarse" or "fine".
        batch: slices per forward pass.

    Raises:
        UserError: a record that doesn't say how to prepare a scan, or whose words are code for
            MONAI's parser; a model of several channels.
    """
    if not all(record.get(entry) for entry in ("class_names", "intensity", "preparation")):
        raise UserError(
            f"{model_folder / MODEL_FILES[0]}: expected class names, intensity rule and "
            "preparation, found none; a bundle of it can't read a scan. Train it again."
        )
    if len(names := list(recorded(record["preparation"]))) > 1:
        raise UserError(
            f"{model_folder / MODEL_FILES[0]}: a bundle reads scans of one channel, the model has "
            f"{' and '.join(names)}; export it with --format huggingface or onnx."
        )
    config = inference(record, model, stage, batch)
    about = describe(record, name, sha256(model_folder / MODEL_FILES[1]))
    _check_words(record, model_folder)
    weights = folder / WEIGHTS
    weights.parent.mkdir(parents=True)
    state = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    torch.save(state, weights)
    write_json(folder / CONFIG, config)
    write_json(folder / METADATA, about)
    write_text(folder / LOGGING, LOGGED)
    write_text(folder / README, card(model_folder, record, name, _use(name)))


def network(folder: Path) -> nn.Module:
    """The network of a bundle with its weights, as MONAI builds it: volumes to labels."""
    from monai.bundle import ConfigParser  # takes seconds

    parser = ConfigParser()
    parser.read_config(str(folder / CONFIG))
    built: nn.Module = parser.get_parsed_content("network_def")
    built.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    return built.eval()


def inference(
    record: Mapping[str, Any], model: SegmentationModel, stage: str, batch: int
) -> dict[str, Any]:
    """The content of configs/inference.json; arguments as for `write`."""
    arguments = dict(model.config)
    builder = MODELS[arguments.pop("model")].builder.replace(":", ".")
    if (backbone := backbone_name(record)) is not None:
        # one in Hugging Face form is built from the form in the arguments, not from its folder
        arguments["backbone"] = backbone
    preparation = record["preparation"]
    return {
        "imports": ["$import hsam_pipeline"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/labels'",
        "network_def": {
            "_target_": f"{PARTS}.SliceBySlice",
            "model": {"_target_": builder, **arguments},
            "stage": stage,
            "batch_size": batch,
            "resizing": records.resizing_name(record),
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": f"{PARTS}.ScanSlicesd",
                    "keys": "image",
                    "intensity": record["intensity"],
                    "axes": preparation["axes"],
                    "spacing_mm": preparation["spacing_mm"],
                }
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": {"_target_": f"{PARTS}.scans_in", "folder": "@dataset_dir"},
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": f"{PARTS}.LabelsOnScand",
                    "keys": "pred",
                    "ref_image": "image",
                    "axes": preparation["axes"],
                },
                {
                    "_target_": "SaveImaged",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "output_postfix": "seg",
                    "separate_folder": False,
                    # folders within that of the scans stay apart
                    "data_root_dir": "@dataset_dir",
                    "writer": f"{PARTS}.LabelMapWriter",
                },
            ],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": f"$@bundle_root + '/{WEIGHTS}'",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def describe(record: Mapping[str, Any], name: str, digest: str) -> dict[str, Any]:
    """The content of configs/metadata.json; `digest`: SHA-256 of the run's weights."""
    names, rule = record["class_names"], record["intensity"]
    hounsfield = rule["kind"] == "window" and rule["low"] < 0
    volume = {"type": "image", "num_channels": 1, "spatial_shape": ["*", "*", "*"]}
    classes = {"0": "background"} | {str(number): organ for number, organ in enumerate(names, 1)}
    made_up = record.get("data_set") == Phantom.name
    called = model_title(record["config"]["model"])
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "changelog": {VERSION: f"Exported by hsam {__version__}; weights {digest[:12]}"},
        "name": name,
        "monai_version": metadata.version("monai"),
        "pytorch_version": metadata.version("torch").partition("+")[0],
        "numpy_version": metadata.version("numpy"),
        "required_packages_version": {"hsam": __version__} | PACKAGES,
        "task": f"Segmentation of {', '.join(names)}",
        "description": what(record),
        "authors": f"The trainer of the model; {called} by the authors of the paper",
        "copyright": "See docs/README.md, Licences",
        "intended_use": MADE_UP if made_up else RESEARCH,
        "data_type": "volumes in any format that hsam predict reads",
        "network_data_format": {
            "inputs": {
                "image": {
                    **volume,
                    "format": "hounsfield" if hounsfield else "magnitude",
                    "modality": "CT" if hounsfield else "n/a",
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": False,
                    "channel_def": {"0": "slices along the first axis, scaled to [0, 1]"},
                }
            },
            "outputs": {
                "pred": {
                    **volume,
                    "format": "segmentation",
                    "dtype": "uint8",
                    "value_range": [0, len(names)],
                    "is_patch_data": False,
                    "channel_def": classes,
                }
            },
        },
    }


def _check_words(record: Mapping[str, Any], folder: Path) -> None:
    """Refuse words of a record that MONAI's parser would run or look up."""
    config = record["config"]
    words = [*record["class_names"], record["preparation"]["axes"], record["intensity"]["kind"]]
    words += [value for value in config.values() if isinstance(value, str)]
    if bad := [word for word in words if word.startswith(CODE)]:
        raise UserError(
            f"{folder / MODEL_FILES[0]}: expected words that don't begin with {' '.join(CODE)}, "
            f"which MONAI takes for code, found {', '.join(map(repr, bad))}; name them otherwise."
        )


def _use(name: str) -> str:
    """How the bundle is used, for its card."""
    return (
        "A MONAI bundle, with all weights in it. In an environment with H-SAM, in this folder:\n\n"
        f"```\npip install 'hsam[{EXTRA}]=={__version__}'\n{RUN}\n```\n\n"
        "SCANS is a folder of volumes or DICOM series, LABELS gets a label map of each on its own "
        "grid. MONAI Label's app `monaibundle`, which has 3D Slicer and OHIF as viewers, takes the "
        f"folder as `model/{name}` below its own, with `--conf models {name}`."
    )
