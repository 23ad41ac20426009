"""An encoder in Hugging Face form, from the parameter to scores and predictions."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hsam
from pipeline.core import weight_files
from pipeline.core.errors import UserError
from pipeline.core.params.render import render
from pipeline.inference.trained import load_model
from pipeline.stages import evaluate, train
from pipeline.training.build import build_model
from tests.hsam import hugging_face_folders as folders
from tests.pipeline.conftest import make_params, split_and_search

TINY = {
    "image_size": 32,
    "epochs": 1,
    "batch_size": 8,
    "validate_every": 0,
    "sam_checkpoint": None,
    "train_encoder": False,
    "lora_rank": 2,
}


def params_for(place: Path, dataset: dict | None = None, **changes):
    blocks = {"train": TINY | {"backbone": f"hf:{place}"} | changes, "search": {"trials": 0}}
    return make_params(**blocks if dataset is None else blocks | {"dataset": dataset})


@pytest.fixture(scope="module")
def work(prepared_phantoms, phantom_params, tmp_path_factory):
    """A folder with an encoder, a split, an empty search and a finished training; read only."""
    folder = tmp_path_factory.mktemp("hugging_face")
    folders.dinov3(folder / "encoder")
    params = params_for(folder / "encoder", phantom_params.dataset.model_dump())
    split_and_search(params, prepared_phantoms, folder)
    run(params, prepared_phantoms, folder, folder)
    return params, prepared_phantoms, folder


def run(params, prepared: Path, folder: Path, out: Path) -> None:
    stages = [prepared, folder / "split", folder / "search"]
    train.run(params, *stages, out / "train", out / "runs", device="cpu")


def test_training_keeps_what_is_trained_and_names_the_rest(work):
    params, _, folder = work
    record = hsam.read_record(folder / "train")
    weights = folder / "encoder" / "model.safetensors"
    assert record["config"]["backbone"] == params.train.backbone
    assert record["config"]["hugging_face"]["config"]["hidden_size"] == 32
    assert record["needs_sam_checkpoint"]
    provenance = json.loads((folder / "train" / "provenance.json").read_text())
    digest = weight_files.checked_sha256(weights, params.train.backbone)
    assert provenance["inputs"]["sam_checkpoint"] == record["sam_sha256"] == digest
    stored = load_file(folder / "train" / "model.safetensors")
    assert "neck.0.weight" in stored
    inside = {name: tensor for name, tensor in stored.items() if name.startswith("image_encoder.")}
    assert {name.rpartition(".")[2] for name in inside} == {"a_q", "b_q", "a_v", "b_v"}
    assert all(tensor.any() for tensor in inside.values())


def test_a_training_is_out_of_date_with_other_weights_or_another_config(work, tmp_path, capsys):
    params, prepared, folder = work
    shutil.copytree(folder / "encoder", tmp_path / "encoder")
    moved = params_for(tmp_path / "encoder", params.dataset.model_dump())
    run(moved, prepared, folder, tmp_path)
    run(moved, prepared, folder, tmp_path)
    assert "already done" in capsys.readouterr().err
    path = tmp_path / "encoder" / "model.safetensors"
    state = load_file(path)
    save_file({**state, "norm.bias": state["norm.bias"] + 1}, path)
    run(moved, prepared, folder, tmp_path)
    folders.edit_json(tmp_path / "encoder" / "config.json", layer_norm_eps=1e-4)
    run(moved, prepared, folder, tmp_path)
    assert "already done" not in capsys.readouterr().err
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_what_is_computed_once_is_what_is_frozen(work, tmp_path):
    params, prepared, folder = work
    changes = {"lora_rank": 0, "cache_embeddings": 1, "model": "samed", "normalise": True}
    cached = params_for(folder / "encoder", params.dataset.model_dump(), **changes)
    run(cached, prepared, folder, tmp_path)
    [embeddings] = tmp_path.glob("runs/*-embeddings-*/embeddings.f16")
    assert embeddings.stat().st_size == 23 * 32 * 2 * 2 * 2  # slices, D x G x G, float16
    network = hsam.load(tmp_path / "train")
    fresh = build_model(cached.train, 8, cached.seed_of("train"))
    changed = {
        name.partition(".")[0]
        for name, tensor in fresh.state_dict().items()
        if not torch.equal(tensor, network.state_dict()[name])
    }
    assert "neck" in changed and "image_encoder" not in changed


def test_its_model_is_scored_and_loaded_where_the_folder_lies_elsewhere(work, tmp_path):
    params, prepared, folder = work
    stages = [prepared, folder / "split", folder / "train"]
    evaluate.run(params, *stages, tmp_path / "evaluate", tmp_path / "runs", device="cpu")
    assert (tmp_path / "evaluate" / "metrics.json").is_file()
    shutil.copytree(folder / "train", tmp_path / "train")
    path = tmp_path / "train" / "model.json"
    record = json.loads(path.read_text())
    record["config"]["backbone"] = f"hf:{tmp_path / 'gone'}"
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"weight file with SHA-256 .* name its folder with --ch"):
        load_model(tmp_path / "train", None, "cpu")
    model = load_model(tmp_path / "train", folder / "encoder", "cpu")
    expected = load_model(folder / "train", None, "cpu")
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(model(image).fine_logits, expected(image).fine_logits)
    # the folder that the parameters name comes before the recorded one
    stages = [prepared, folder / "split", tmp_path / "train"]
    evaluate.run(params, *stages, tmp_path / "evaluate", tmp_path / "runs", device="cpu")


@pytest.mark.parametrize(
    ("break_folder", "message"),
    [
        (lambda place: shutil.rmtree(place), "train.backbone: hf:.*: there is no folder"),
        (lambda place: (place / "config.json").unlink(), "config.json: expected the description"),
        (lambda place: (place / "model.safetensors").unlink(), "expected model.safetensors in"),
        (
            lambda place: (place / "model.safetensors").rename(place / "pytorch_model.bin"),
            "found pytorch_model.bin, which may run code",
        ),
        (
            lambda place: folders.edit_json(place / "config.json", model_type="resnet"),
            "found 'resnet'",
        ),
        (
            lambda place: (place / "model.safetensors").write_text("version https://git-lfs"),
            "is a pointer of Git LFS",
        ),
    ],
)
def test_what_can_not_be_used_is_refused_in_a_sentence(work, tmp_path, break_folder, message):
    _, prepared, folder = work
    place = tmp_path / "encoder"
    shutil.copytree(folder / "encoder", place)
    break_folder(place)
    with pytest.raises(UserError, match=message):
        run(params_for(place), prepared, folder, tmp_path)
    assert not (tmp_path / "train").exists()


def test_parameters_that_do_not_go_with_it_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"'auto' can't load into hf:.*; set it to null"):
        params_for(tmp_path, sam_checkpoint="auto")
    with pytest.raises(UserError, match=r"train.backbone: 'hf:' is not allowed"):
        make_params(train={"backbone": "hf:"})


def test_the_command_refuses_without_a_traceback(work, tmp_path):
    params, prepared, folder = work
    (tmp_path / "params.yaml").write_text(render(params_for(tmp_path / "gone")))
    results = tmp_path / "results"
    results.mkdir()
    (results / "prepare").symlink_to(prepared)
    for name in ("split", "search"):
        (results / name).symlink_to(folder / name)
    code = "from pipeline.cli import main; main()"
    options = ["train", "--params", "params.yaml", "--results", "results", "--runs", "runs"]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "train.backbone: hf:" in done.stderr and "Traceback" not in done.stderr
