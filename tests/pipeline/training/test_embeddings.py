"""Embeddings that a frozen encoder computes once."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import hsam
from hsam.inference import for_inference
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Train
from pipeline.core.run_folder import open_run
from pipeline.stages import prepare, split
from pipeline.training import embeddings
from pipeline.training.augment import augment, sample_seeds
from pipeline.training.batches import Batches
from pipeline.training.build import build_model
from pipeline.training.devices import make_fabric
from pipeline.training.embeddings import EMBEDDINGS, LABELS, PROGRESS, Embeddings, embedded
from pipeline.training.fit import fit
from pipeline.training.prepared import TrainingData
from pipeline.training.validation import Validation
from pipeline.training.validation_embeddings import MIB, ValidationEmbeddings
from tests.pipeline.channel_folders import write_raw
from tests.pipeline.conftest import make_params

SEED = 3
# a frozen encoder; its weights are random, which the parameters don't allow
FROZEN = {"lora_rank": 0, "train_encoder": False, "cache_embeddings": 2, "image_size": 32}


@pytest.fixture(scope="module")
def data(phantom_params, prepared_phantoms, tmp_path_factory) -> TrainingData:
    folder = tmp_path_factory.mktemp("split")
    split.run(phantom_params, prepared_phantoms, folder / "split", folder / "runs")
    return TrainingData.open(prepared_phantoms, folder / "split")


@pytest.fixture
def settings(phantom_params) -> Train:
    return phantom_params.train.model_copy(update=FROZEN)


def compute(runs: Path, data: TrainingData, settings: Train) -> Embeddings:
    with open_run(runs, data.name, "train", {"train": {}}, data.hashes) as run:
        found = embedded(run, settings, data, SEED, "cpu")
    assert found is not None
    return found


def files(found: Embeddings) -> tuple[bytes, bytes]:
    return (found.folder / EMBEDDINGS).read_bytes(), (found.folder / LABELS).read_bytes()


def test_a_row_is_an_augmented_slices_embedding(tmp_path, data, settings):
    found = compute(tmp_path, data, settings)
    slices = data.slices("train")
    assert (found.slices, found.views) == (len(slices), 2)
    rows, labels = found.arrays()
    model = for_inference(build_model(settings, len(data.class_names), SEED))
    for view, index in ((0, 1), (1, 1), (1, len(slices) - 1)):
        item = slices[index]
        seeds = sample_seeds(SEED, view, torch.tensor([index]))
        image, label = augment([item.unit()], [item.label], settings.augment, seeds, 32)
        with torch.inference_mode():
            expected = model.embed(image)[0].numpy()
        row = view * len(slices) + index
        np.testing.assert_allclose(rows[row], expected, atol=2e-3)
        assert np.array_equal(labels[row], label[0].numpy())
    assert not np.array_equal(rows[1], rows[len(slices) + 1])


def test_noise_is_told_in_standard_deviations(tmp_path, data, settings, capsys):
    found = compute(tmp_path, data, settings)
    rows = found.arrays()[0].astype(np.float64)
    times = 0.2 * (rows.max() - rows.min()) / rows.std()
    for name, told in (("hsam", True), ("samed", False)):
        chosen = settings.model_copy(update={"model": name, "embedding_noise": 0.2, "epochs": 1})
        fabric, folder = make_fabric(chosen, "cpu"), tmp_path / name
        fabric.launch()
        folder.mkdir()
        model = build_model(chosen, len(data.class_names), SEED)
        slices = data.slices("train")
        fit(fabric, model, slices, chosen, seed=SEED, folder=folder, embeddings=found)
        shown = "".join(capsys.readouterr())
        assert (f"{times:.1f} times their standard" in " ".join(shown.split())) == told


def test_each_epoch_takes_a_view(tmp_path, data, settings):
    found = compute(tmp_path, data, settings)
    rows, _ = found.arrays()
    batches = Batches(found.slices, 3, 4, 2, SEED)
    steps = list(batches.steps())
    passes = [(step, part) for step in steps for part in step.passes]
    read = found.batches(steps, torch.device("cpu"))
    for (step, part), (batch, _, indices) in zip(passes, read, strict=True):
        assert torch.equal(indices, part.indices)
        first = (step.epoch % 2) * found.slices
        assert np.array_equal(batch.numpy(), rows[first + part.indices.numpy()])


def test_an_interrupted_one_goes_on(tmp_path, data, settings, monkeypatch):
    monkeypatch.setattr(embeddings, "CHUNK", 2)
    whole = compute(tmp_path / "whole", data, settings)
    part = compute(tmp_path / "part", data, settings)
    (part.folder / PROGRESS).write_text('{"chunks": 1}')
    for name in (EMBEDDINGS, LABELS):  # a row and a half behind what is noted is not to be trusted
        path = part.folder / name
        size = part.row_bytes[name]
        path.write_bytes(path.read_bytes()[: 2 * size] + b"?" * (3 * size // 2))
    again = compute(tmp_path / "part", data, settings)
    assert files(again) == files(whole)


def test_a_file_that_is_gone_or_cut_is_computed_again(tmp_path, data, settings):
    found = compute(tmp_path, data, settings)
    whole = files(found)
    (found.folder / EMBEDDINGS).unlink()
    assert files(compute(tmp_path, data, settings)) == whole
    (found.folder / LABELS).write_bytes(whole[1][:-1])
    assert files(compute(tmp_path, data, settings)) == whole


def test_what_is_there_is_not_computed_again(tmp_path, data, settings):
    found = compute(tmp_path, data, settings)
    before = (found.folder / EMBEDDINGS).stat().st_mtime_ns
    other = settings.model_copy(update={"learning_rate": 0.1, "epochs": 2})
    assert compute(tmp_path, data, other) == found
    assert (found.folder / EMBEDDINGS).stat().st_mtime_ns == before
    assert compute(tmp_path, data, settings.model_copy(update={"tf32": False})) != found


def test_models_that_start_from_the_same_file_share_them(tmp_path, data, settings):
    start = hsam.build("samed", backbone="litemedsam", image_size=256, lora_rank=0).state_dict()
    sam = {
        name.replace("coarse_decoder.", "mask_decoder."): tensor
        for name, tensor in start.items()
        if ".class_mlps." not in name
    }
    torch.save(sam, tmp_path / "start.pth")
    pretrained = {"backbone": "litemedsam", "sam_checkpoint": str(tmp_path / "start.pth")}
    frozen = settings.model_copy(update=pretrained)
    found = {
        name: compute(tmp_path / "runs", data, frozen.model_copy(update={"model": name}))
        for name in ("hsam", "samed", "autosam")
    }
    assert found["samed"] == found["hsam"] == found["autosam"]
    # random weights differ from model to model
    scratch = [settings.model_copy(update={"model": name}) for name in ("hsam", "samed")]
    assert len({compute(tmp_path / "runs", data, each).folder for each in scratch}) == 2


def test_a_training_on_them_learns_the_decoders_alone(tmp_path, data, settings):
    settings = settings.model_copy(
        update={"epochs": 6, "batch_size": 8, "warmup_iterations": 2, "learning_rate": 0.005}
    )
    found = compute(tmp_path, data, settings)
    weights = []
    for _ in range(2):
        model = build_model(settings, len(data.class_names), SEED)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        fabric = make_fabric(settings, "cpu")
        fabric.launch()
        slices = data.slices("train")
        progress = fit(fabric, model, slices, settings, seed=SEED, embeddings=found)
        losses = [row["train_loss"] for row in progress.history.epochs]
        assert losses[-1] < 0.9 * losses[0]
        now = model.state_dict()
        changed = {name for name, value in now.items() if not torch.equal(value, before[name])}
        assert changed and not any(name.startswith("image_encoder.") for name in changed)
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_full_disk_is_told_before_the_work(tmp_path, data, settings, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(embeddings.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"train.cache_embeddings: 2 x .* don't fit on the disk of"):
        compute(tmp_path, data, settings)


def test_embeddings_of_several_channels(tmp_path, settings):
    root = write_raw(tmp_path / "raw", cases=3)
    about = {"name": "nnunet", "root": str(root), "channels": ["T2", "ADC"]}
    params = make_params(dataset=about, split={"test": 0.3, "validation": 0.3})
    prepare.run(params, tmp_path / "prepare", tmp_path / "runs")
    split.run(params, tmp_path / "prepare", tmp_path / "split", tmp_path / "runs")
    data = TrainingData.open(tmp_path / "prepare", tmp_path / "split")
    found = compute(tmp_path / "runs", data, settings)
    item = data.slices("train")[1]
    seeds = sample_seeds(SEED, 0, torch.tensor([1]))
    image, _ = augment([item.unit()], [item.label], settings.augment, seeds, 32)
    assert image.shape == (1, 2, 32, 32)
    model = for_inference(build_model(settings, 1, SEED))
    three = torch.cat([image, image.mean(1, keepdim=True)], 1)
    with torch.inference_mode():
        expected = model.embed(three)[0].numpy()
    np.testing.assert_allclose(found.arrays()[0][1], expected, atol=2e-3)


def test_validation_slices_are_embedded_once(tmp_path, data, settings):
    fabric = make_fabric(settings, "cpu")
    fabric.launch()
    model = build_model(settings, len(data.class_names), SEED)
    embedded_slices = []
    model.image_encoder.register_forward_hook(
        lambda _, images, __: embedded_slices.append(len(images[0]))
    )

    def encoded(kept: ValidationEmbeddings | None) -> tuple[dict[str, float], int]:
        embedded_slices.clear()
        return Validation.of(data, kept)(model, fabric, 4), sum(embedded_slices)

    scores, slices = encoded(None)
    assert any(scores.values())
    kept = ValidationEmbeddings(64).behind(tmp_path / "encoder")
    assert encoded(kept) == (scores, slices)
    assert encoded(kept.behind(tmp_path / "encoder")) == (scores, 0)
    assert encoded(kept.behind(tmp_path / "another")) == (scores, slices)
    batch = 4 * model.embed(torch.zeros(1, 1, 32, 32)).nbytes / MIB
    few = ValidationEmbeddings(2.1 * batch)
    assert encoded(few) == (scores, slices)
    assert encoded(few) == (scores, slices - 8)


def test_a_training_has_the_same_validations_with_them_in_memory(tmp_path, data, settings):
    found = compute(tmp_path, data, settings)
    settings = settings.model_copy(
        update={"epochs": 3, "batch_size": 8, "validate_every": 1, "learning_rate": 0.005}
    )
    fabric = make_fabric(settings, "cpu")
    fabric.launch()
    validations = []
    for mib in (0, 64):
        fitted = fit(
            fabric,
            build_model(settings, len(data.class_names), SEED),
            data.slices("train"),
            settings,
            seed=SEED,
            validate=Validation.of(data, ValidationEmbeddings(mib)),
            embeddings=found,
        )
        validations.append(fitted.history.validations)
    assert validations[0] == validations[1]
    assert validations[0][0] != validations[0][-1]
