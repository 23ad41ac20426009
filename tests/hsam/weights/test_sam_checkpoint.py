import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import hsam
from hsam.weights.files import read_tensors, sha256
from tests.hsam.seeded import seeded_image
from tests.hsam.toys import randomise, sam_state


@pytest.fixture
def loaded(toy_sam_file):
    """A 64 px model and the report of loading a 128 px file into it."""
    model = hsam.build_hsam("toy", image_size=64, num_classes=3)
    return model, hsam.load_sam_checkpoint(model, toy_sam_file)


def save_state(tmp_path, state):
    path = tmp_path / "other.pth"
    torch.save(state, path)
    return path


def test_report_accounts_for_every_tensor(loaded):
    model, report = loaded
    assert sorted(report.loaded + report.resized + report.new) == sorted(model.state_dict())
    assert len(report.loaded) + len(report.resized) + len(report.unused) == len(sam_state())


def test_what_is_resized(loaded):
    assert loaded[1].resized == [
        "image_encoder.pos_embed",
        "image_encoder.blocks.1.attn.rel_pos_h",
        "image_encoder.blocks.1.attn.rel_pos_w",
    ]


def test_what_is_new(loaded):
    parts = {name.split(".")[1] for name in loaded[1].new if name.startswith("coarse_decoder")}
    assert parts == {"mask_tokens", "class_mlps", "iou_prediction_head"}
    encoder = [name for name in loaded[1].new if name.startswith("image_encoder")]
    assert len(encoder) == 8 and all(".qkv." in name for name in encoder)
    assert not any(name.startswith("prompt_encoder") for name in loaded[1].new)


def test_what_is_unused(loaded):
    assert {name.split(".")[1] for name in loaded[1].unused} == {
        "mask_tokens",
        "output_hypernetworks_mlps",
        "iou_prediction_head",
    }


def test_values_arrive(loaded):
    state, model = sam_state(), loaded[0].state_dict()
    for name in loaded[1].loaded:
        key = name.replace("coarse_decoder.", "mask_decoder.")
        assert torch.equal(model[name], state[key]), name


def test_positions_are_resized_bilinearly(loaded):
    state, encoder = sam_state(), loaded[0].image_encoder
    table = state["image_encoder.blocks.1.attn.rel_pos_h"]
    expected = F.interpolate(table[None, None], (7, 24), mode="bilinear")[0, 0]
    torch.testing.assert_close(encoder.blocks[1].attn.rel_pos_h, expected)
    grid = state["image_encoder.pos_embed"].permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (4, 4), mode="bilinear").permute(0, 2, 3, 1)
    torch.testing.assert_close(encoder.pos_embed, expected)


def test_same_size_is_not_resized(toy_sam_file):
    model = hsam.build_hsam("toy", image_size=128, num_classes=3)
    assert hsam.load_sam_checkpoint(model, toy_sam_file).resized == []


def test_vit_b_file_fits_at_512(published_keys, tmp_path):
    state = {key: torch.zeros(shape) for key, shape in published_keys[0].items()}
    path = save_state(tmp_path, state)
    model = hsam.build_hsam("vit_b", image_size=512, num_classes=1)
    report = hsam.load_sam_checkpoint(model, path)
    assert len(report.resized) == 9  # positions, and two tables in each of four global blocks
    assert not model.image_encoder.pos_embed.any()
    path.unlink()


def test_builder_loads_and_keeps_the_sum(toy_sam_file):
    model = hsam.build_hsam("toy", image_size=64, sam_checkpoint=toy_sam_file)
    assert model.sam_sha256 == sha256(toy_sam_file)
    name = "prompt_encoder.no_mask_embed.weight"
    assert torch.equal(model.state_dict()[name], sam_state()[name])


@pytest.mark.parametrize("name", ["samed", "sam_adapter", "autosam"])
def test_rivals_load_it(name, toy_sam_file):
    model = hsam.build(name, backbone="toy", image_size=64, sam_checkpoint=toy_sam_file)
    report = hsam.load_sam_checkpoint(model, toy_sam_file)
    assert "coarse_decoder.transformer.layers.0.norm1.weight" in report.loaded


def test_merged_weights_take_part_in_nothing(toy_sam_file, toy):
    model = randomise(toy(sam_checkpoint=toy_sam_file)).eval()
    image = seeded_image(1, 64)
    hsam.merge_lora(model)
    hsam.load_sam_checkpoint(model, toy_sam_file)
    expected = toy().eval()
    hsam.load_sam_checkpoint(expected, toy_sam_file)
    assert torch.equal(model(image).coarse_logits, expected(image).coarse_logits)


def test_other_backbone_is_refused(toy_sam_file):
    model = hsam.build_hsam("vit_tiny", image_size=64)
    with pytest.raises(
        ValueError, match=r"expected weights for vit_tiny .*, got those of toy \(48"
    ):
        hsam.load_sam_checkpoint(model, toy_sam_file)


def test_missing_and_unexpected_names_are_all_told(tmp_path):
    state = sam_state()
    del state["image_encoder.neck.0.weight"], state["prompt_encoder.no_mask_embed.weight"]
    state["image_encoder.extra"] = torch.zeros(1)
    state["other"] = torch.zeros(1)
    state["image_encoder.blocks.0.norm1.bias"] = torch.zeros(3)
    model = hsam.build_hsam("toy", image_size=64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        hsam.load_sam_checkpoint(model, save_state(tmp_path, state))
    for text in (
        "missing image_encoder.neck.0.weight",
        "missing prompt_encoder.no_mask_embed.weight",
        "unexpected image_encoder.extra",
        "unexpected other",
        "image_encoder.blocks.0.norm1.bias: expected (48,), got (3,)",
    ):
        assert text in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_no_sam_checkpoint_is_refused(tmp_path):
    path = save_state(tmp_path, {"weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="expected a checkpoint of toy .*, found no image encoder"):
        hsam.load_sam_checkpoint(hsam.build_hsam("toy", image_size=64), path)


def prefixed(prefix):
    return {prefix + name: tensor for name, tensor in sam_state().items()}


@pytest.mark.parametrize(
    "content",
    [
        lambda: prefixed("module."),
        lambda: prefixed("_orig_mod.module."),
        lambda: {"model": sam_state(), "epoch": 3, "optimizer": {"state": {}}},
        lambda: {"state_dict": prefixed("model."), "epoch": 3},
        lambda: {"model": prefixed("module."), "loss": np.float64(0.5), "best": np.float32(1)},
    ],
    ids=["module", "compiled", "wrapped", "lightning", "numpy loss"],
)
def test_checkpoints_of_training_programs_are_read(tmp_path, content):
    model = hsam.build_hsam("toy", image_size=64, num_classes=3)
    report = hsam.load_sam_checkpoint(model, save_state(tmp_path, content()))
    plain = hsam.build_hsam("toy", image_size=64, num_classes=3)
    expected = hsam.load_sam_checkpoint(plain, save_state(tmp_path, sam_state()))
    assert report == expected
    for name in report.loaded:
        assert torch.equal(model.state_dict()[name], plain.state_dict()[name])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    state = sam_state()
    state["image_encoder.neck.0.weight"][0, 0] = value
    model = hsam.build_hsam("toy", image_size=64, num_classes=3)
    before = model.state_dict()["image_encoder.neck.0.weight"].clone()
    with pytest.raises(
        ValueError, match=r"found NaN or infinity in image_encoder\.neck\.0\.weight"
    ):
        hsam.load_sam_checkpoint(model, save_state(tmp_path, state))
    assert torch.equal(model.state_dict()["image_encoder.neck.0.weight"], before)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\n<!DOCTYPE html><html>quota exceeded</html>", "is a web page.*download the file again"),
        ("<HTML><body>404</body></HTML>", "is a web page"),
        ("", "is an empty file"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "git lfs pull"),
    ],
)
def test_text_where_weights_should_be_is_named(tmp_path, text, found):
    path = tmp_path / "sam.pth"
    path.write_text(text)
    with pytest.raises(ValueError, match=found):
        hsam.load_sam_checkpoint(hsam.build_hsam("toy", image_size=64), path)


def test_a_message_names_the_first_problems_only(tmp_path):
    path = save_state(
        tmp_path, sam_state() | {f"other{index}": torch.zeros(1) for index in range(50)}
    )
    with pytest.raises(ValueError, match=r"unexpected other0; .*\(\d+ in all\)") as error:
        hsam.load_sam_checkpoint(hsam.build_hsam("toy", image_size=64), path)
    assert len(str(error.value)) < 1000


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def plain_pickle(value, path):
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize("write", [torch.save, plain_pickle])
def test_code_is_refused_and_not_run(tmp_path, write):
    path, sprung = tmp_path / "trap.pth", tmp_path / "sprung"
    write({"image_encoder.pos_embed": Trap(sprung)}, path)
    with pytest.raises(ValueError, match="expected a file of plain tensors"):
        hsam.load_sam_checkpoint(hsam.build_hsam("toy", image_size=64), path)
    assert not sprung.exists()


def test_anything_but_tensors_is_refused(tmp_path):
    for content, found in (
        ({"a": [1, 2]}, "a list under 'a'"),
        ({"b": torch.zeros(1), "loss": np.float64(1)}, "a float64 under 'loss'"),
        ([torch.zeros(1)], "a list in"),
    ):
        with pytest.raises(ValueError, match=f"expected names and tensors, got {found}"):
            read_tensors(save_state(tmp_path, content))
    with pytest.raises(FileNotFoundError, match="found none at"):
        read_tensors(tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="expected a file of plain tensors"):
        read_tensors(tmp_path / "text.pth")
