import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.params.load import overlay, validate
from pipeline.datasets.synapse import label_path
from pipeline.shards import roles as roles_module
from pipeline.shards.manifest import read_manifest
from pipeline.shards.roles import SplitFile, read_split, write_split
from pipeline.stages import prepare, split
from tests.pipeline.conftest import make_params, save_nifti, tiny_label

# slices of Synapse's training volumes in the lists that circulate: 2211 in all
SYNAPSE = dict(
    zip(
        (5, 6, 7, 9, 10, 21, 23, 24, 26, 27, 28, 30, 31, 33, 34, 37, 39, 40),
        (117, 131, 163, 149, 148, 143, 96, 124, 131, 88, 89, 153, 93, 104, 98, 99, 90, 195),
        strict=True,
    )
)
TEST = (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38)
# made once by `roles_from_settings` itself: a change means that published splits change
GOLDEN_SUBJECTS = ["img0005", "img0023", "img0024", "img0027", "img0034"]
GOLDEN_HASH = "a3267bb85f5c3b90"
NONE = {
    "test": None,
    "folds": None,
    "fold": None,
    "group": None,
    "validation": 0.0,
    "subjects": None,
    "slices": None,
    "only_labelled": False,
    "list": None,
}


def blocks(**changes):
    return make_params(
        split={**NONE, **changes}, search={"trials": 0}, train={"validate_every": 0}
    ).split


def shown(cases: dict[str, int]) -> dict[str, np.ndarray]:
    """Organs in all slices but the first and last two."""
    return {
        case: np.array([2 <= index < count - 2 for index in range(count)])
        for case, count in cases.items()
    }


def synapse() -> dict[str, np.ndarray]:
    counts = {f"img{number:04}": count for number, count in SYNAPSE.items()}
    return shown(counts | {f"img{number:04}": 100 for number in TEST})


CANONICAL = [f"img{number:04}" for number in TEST]


def of_role(roles, role):
    return [key for key, found in roles.items() if found == role]


def subjects(roles, role):
    return sorted({case for case, _ in of_role(roles, role)})


def test_ten_percent_of_synapse_is_221_slices():
    roles = split.roles_from_settings(blocks(slices=0.1), 42, synapse(), CANONICAL)
    assert len(of_role(roles, "train")) == 221
    assert len(of_role(roles, "unused")) == 2211 - 221
    assert len(of_role(roles, "test")) == 1200
    assert subjects(roles, "test") == sorted(CANONICAL)
    # drawn over all subjects, not so many from each
    per_subject = pd.Series([case for case, _ in of_role(roles, "train")]).value_counts()
    assert len(per_subject) == 18
    assert len(set(per_subject)) > 3


def test_five_subjects_of_eighteen():
    roles = split.roles_from_settings(blocks(subjects=5), 42, synapse(), CANONICAL)
    assert len(subjects(roles, "train")) == 5
    assert len(subjects(roles, "unused")) == 13
    assert not set(subjects(roles, "train")) & set(subjects(roles, "unused"))


def test_named_subjects_and_only_slices_with_organs():
    named = ["img0040", "img0005"]
    settings_ = blocks(subjects=named, only_labelled=True)
    roles = split.roles_from_settings(settings_, 42, synapse(), CANONICAL)
    assert subjects(roles, "train") == sorted(named)
    assert len(of_role(roles, "train")) == 117 - 4 + 195 - 4
    assert roles["img0005", 1] == "unused"
    assert roles["img0005", 2] == "train"
    # the test set keeps all its slices
    assert len(of_role(roles, "test")) == 1200


def test_the_choice_is_a_golden_one():
    roles = split.roles_from_settings(blocks(subjects=5, slices=0.1), 42, synapse(), CANONICAL)
    chosen = SplitFile("synapse", roles)
    assert chosen.cases["train"] == GOLDEN_SUBJECTS
    assert chosen.hash[:16] == GOLDEN_HASH


def test_the_seed_and_only_the_seed_changes_the_choice():
    settings_ = blocks(slices=0.1, validation=0.2)
    backwards = dict(reversed(synapse().items()))
    first = split.roles_from_settings(settings_, 1, synapse(), CANONICAL)
    assert split.roles_from_settings(settings_, 1, backwards, CANONICAL[::-1]) == first
    assert split.roles_from_settings(settings_, 2, synapse(), CANONICAL) != first


def test_validation_takes_whole_subjects_first():
    roles = split.roles_from_settings(blocks(validation=0.2), 42, synapse(), CANONICAL)
    held_out = subjects(roles, "validation")
    assert len(held_out) == 4
    assert len(of_role(roles, "validation")) == sum(
        SYNAPSE[int(case.removeprefix("img"))] for case in held_out
    )
    # fewer slices to train on don't change who is held out
    fewer = split.roles_from_settings(blocks(validation=0.2, slices=0.1), 42, synapse(), CANONICAL)
    assert subjects(fewer, "validation") == held_out


def test_named_subjects_are_not_held_out():
    named = sorted(synapse().keys() - set(CANONICAL))[:12]
    roles = split.roles_from_settings(
        blocks(subjects=named, validation=0.3), 42, synapse(), CANONICAL
    )
    assert subjects(roles, "train") == named
    assert len(subjects(roles, "validation")) == 5


def test_test_subjects_by_share_and_by_name():
    roles = split.roles_from_settings(blocks(test=0.3), 42, synapse(), [])
    assert len(subjects(roles, "test")) == 9
    roles = split.roles_from_settings(blocks(test=["img0007"]), 42, synapse(), CANONICAL)
    assert subjects(roles, "test") == ["img0007"]
    assert len(subjects(roles, "train")) == 29


@given(
    cases=st.dictionaries(
        st.from_regex(r"[a-z]{1,3}", fullmatch=True), st.integers(1, 12), min_size=4
    ),
    test=st.floats(0.01, 0.5),
    validation=st.floats(0, 0.3),
    slices=st.one_of(st.none(), st.floats(0.05, 1)),
    only_labelled=st.booleans(),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_no_split_leaks(cases, test, validation, slices, only_labelled, seed):
    chosen = blocks(test=test, validation=validation, slices=slices, only_labelled=only_labelled)
    try:
        roles = split.roles_from_settings(chosen, seed, shown(cases), [])
    except UserError:
        return
    made = SplitFile("any", roles)
    assert set(roles) == {(case, index) for case, count in cases.items() for index in range(count)}
    assert roles_module.leaks(made.cases) == []
    assert made.cases["test"]
    assert made.slices["train"]
    assert not set(made.cases["validation"]) & set(made.cases["train"])
    if validation > 0:
        assert made.cases["validation"]


@pytest.mark.parametrize(
    ("changes", "canonical", "message"),
    [
        ({}, [], "split.test: null takes the test subjects of the literature"),
        ({"test": ["x", "img0007"]}, [], "split.test: there is no case x; the cases are img0001, "),
        (
            {"test": [str(number) for number in range(20)]},
            [],
            r"no case 0, 1, 2, 3, 4, ... \(20 in all\); the cases are .*, ... \(30 in all\).$",
        ),
        ({"subjects": ["img0005", "img0005"]}, CANONICAL, "img0005 is named twice"),
        ({"subjects": ["img0001"]}, CANONICAL, "img0001 is a test subject"),
        ({"subjects": 19}, CANONICAL, "19 asked for, 18 left"),
        ({"test": 1.0}, [], "every subject is a test subject"),
        ({"validation": 0.99}, CANONICAL, "split.validation: 0.99 of 18"),
    ],
)
def test_settings_that_do_not_fit(changes, canonical, message):
    with pytest.raises(UserError, match=message):
        split.roles_from_settings(blocks(**changes), 42, synapse(), canonical)


def test_nothing_to_train_on():
    shows = {"a": np.zeros(3, bool), "b": np.ones(3, bool)}
    with pytest.raises(UserError, match="no training slice is left"):
        split.roles_from_settings(blocks(test=["b"], only_labelled=True), 1, shows, [])


@pytest.mark.parametrize(("value", "whole"), [(221.1, 221), (2.5, 3), (0.4, 0), (3.5, 4)])
def test_rounding(value, whole):
    assert split.rounded(value) == whole


LIST = "case,slice,role\na,0,train\na,1,validation\nb,0,test\n"
SLICES = {"a": 3, "b": 2, "007": 1}


def from_text(tmp_path, text):
    path = tmp_path / "roles.csv"
    path.write_text(text)
    return split.roles_from_list(split.read_list(path), SLICES, path)


def test_a_list_of_the_users(tmp_path):
    roles = from_text(tmp_path, LIST + "007,0,train\n")
    assert of_role(roles, "train") == [("007", 0), ("a", 0)]
    assert roles["a", 2] == roles["b", 1] == "unused"
    table = pd.read_csv(tmp_path / "roles.csv", dtype={"case": str})
    table.to_parquet(tmp_path / "roles.parquet")
    path = tmp_path / "roles.parquet"
    assert split.roles_from_list(split.read_list(path), SLICES, path) == roles


def test_everything_wrong_with_a_list_at_once(tmp_path):
    rows = ["c,0,train", "a,3,train", "a,x,train", "a,2,training", "a,0,test", "b,1,validation"]
    with pytest.raises(UserError) as caught:
        from_text(tmp_path, LIST + "\n".join(rows))
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 8
    for message in (
        "row 4: there is no case 'c'",
        "row 5: case a has slices 0 to 2, found '3'",
        "row 6: case a has slices 0 to 2, found 'x'",
        "row 7: expected a role of train, validation, test, unused, found 'training'",
        "row 8: case a slice 0 is listed twice",
        "case b is in test and in validation",
    ):
        assert message in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,slice\na,0\n", "expected the columns case, slice, role; role missing"),
        ("case,slice,role\na,0,test\n", "no slice has the role train"),
        ("", "can't be read"),
    ],
)
def test_lists_that_are_none(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        from_text(tmp_path, text)
    with pytest.raises(UserError, match="there is no such file"):
        split.read_list(tmp_path / "none.csv")


ROLES = {("a", 0): "train", ("a", 1): "unused", ("b", 0): "test"}


def test_the_file_comes_back(tmp_path):
    made = SplitFile("any", ROLES)
    write_split(tmp_path / "s.parquet", made)
    read = read_split(tmp_path / "s.parquet")
    assert read == made
    assert read.hash == made.hash
    assert read.slices["train"] == (("a", 0),)
    assert read.counts["unused"] == {"subjects": 1, "slices": 1}
    about = json.loads(pq.read_schema(tmp_path / "s.parquet").metadata[b"hsam"])
    assert about["hash"] == made.hash
    assert about["counts"]["test"] == {"subjects": 1, "slices": 1}


def test_the_hash_is_that_of_the_roles():
    made = SplitFile("any", ROLES)
    assert SplitFile("any", dict(reversed(ROLES.items()))).hash == made.hash
    assert SplitFile("other", ROLES).hash != made.hash
    assert SplitFile("any", ROLES | {("a", 1): "train"}).hash != made.hash


def test_changed_rows_are_found(tmp_path):
    path = tmp_path / "s.parquet"
    write_split(path, SplitFile("any", ROLES))
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 2), path)
    with pytest.raises(UserError, match="its rows don't have the hash"):
        read_split(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match="damaged"):
        read_split(path)
    with pytest.raises(UserError, match="there is no such file"):
        read_split(tmp_path / "none.parquet")


def test_a_leak_is_neither_written_nor_read(tmp_path, monkeypatch):
    leak = SplitFile("any", ROLES | {("b", 1): "train"})
    with pytest.raises(UserError, match="case b is in test and in train"):
        write_split(tmp_path / "s.parquet", leak)
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(roles_module, "leaks", lambda cases: [])
        write_split(tmp_path / "s.parquet", leak)
    with pytest.raises(UserError, match="case b is in test and in train"):
        read_split(tmp_path / "s.parquet")


def test_the_stage(phantom_params, prepared_phantoms, tmp_path):
    out, runs = tmp_path / "split", tmp_path / "runs"
    split.run(phantom_params, prepared_phantoms, out, runs)
    made = read_split(out / "split.parquet")
    assert made.name == "phantom"
    assert made.cases["test"] == ["img0004", "img0005"]
    assert len(made.cases["validation"]) == 1
    told = files.read_json(out / "split.json")
    assert told["hash"] == made.hash
    assert told["roles"]["train"]["slices"] == len(made.slices["train"])
    assert told["roles"]["train"]["cases"] == made.cases["train"]
    provenance = files.read_json(out / "provenance.json")
    manifest = prepared_phantoms / "manifest.parquet"
    assert provenance["inputs"] == {"manifest": files.sha256(manifest)}
    first = (out / "split.parquet").read_bytes()
    shutil.rmtree(runs)
    split.run(phantom_params, prepared_phantoms, out, runs)
    assert (out / "split.parquet").read_bytes() == first


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_stage_with_a_list(phantom_params, prepared_phantoms, tmp_path, encoding):
    path = tmp_path / "roles.csv"
    text = "case,slice,role\nimg0001,3,train\nimg0005,0,test\n"
    path.write_text(text, encoding=encoding)
    about = {**NONE, "list": str(path)}
    params = phantom_params.model_copy(update={"split": make_params(split=about).split})
    split.run(params, prepared_phantoms, tmp_path / "split", tmp_path / "runs")
    made = read_split(tmp_path / "split" / "split.parquet")
    assert made.slices["train"] == (("img0001", 3),)
    provenance = files.read_json(tmp_path / "split" / "provenance.json")
    assert provenance["inputs"]["list"] == files.sha256(path)


def test_a_test_case_without_any_organ_is_named(synapse_params, synapse_root, tmp_path, capsys):
    save_nifti(label_path(synapse_root, "img0006"), tiny_label() * 0)
    params = synapse_params(
        split={**NONE, "test": ["img0001", "img0006"]},
        search={"trials": 0},
        train={"validate_every": 0},
    )
    prepare.run(params, tmp_path / "prepare", tmp_path / "runs")
    capsys.readouterr()
    split.run(params, tmp_path / "prepare", tmp_path / "split", tmp_path / "runs")
    printed = capsys.readouterr().err
    assert "warning: test case img0006 shows no organ" in printed
    assert "test case img0001" not in printed


def test_the_stage_without_prepared_data(phantom_params, tmp_path):
    with pytest.raises(UserError, match="run the prepare stage first"):
        split.run(phantom_params, tmp_path, tmp_path / "split", tmp_path / "runs")


def test_the_splits_own_seed_wins_over_the_bases(phantom_params, prepared_phantoms, tmp_path):
    def made(**blocks):
        values = overlay(phantom_params.model_dump(mode="json"), blocks)
        split.run(validate(values, ""), prepared_phantoms, tmp_path / "split", tmp_path / "runs")
        return read_split(tmp_path / "split" / "split.parquet").hash

    first = made(base={"seed": 7})
    assert made(base={"seed": 8}, split={"seed": 7}) == first
    assert made(base={"seed": 8}) != first
    assert made(base={"seed": 7}, train={"seed": 1}, search={"seed": 2}) == first


def test_an_organ_that_no_training_slice_shows_is_said(
    phantom_params, prepared_phantoms, tmp_path, capsys
):
    manifest = read_manifest(prepared_phantoms / "manifest.parquet")
    counts = split.class_counts(manifest, prepared_phantoms / "shards")["img0001"]
    (place, *_) = (index for index, row in enumerate(counts) if 0 < (row[1:] > 0).sum() < 8)
    missing = [
        name
        for name, pixels in zip(manifest.class_names, counts[place][1:], strict=True)
        if not pixels
    ]
    path = tmp_path / "roles.csv"
    path.write_text(f"case,slice,role\nimg0001,{place},train\nimg0005,0,test\n")
    params = phantom_params.model_copy(
        update={"split": make_params(split={**NONE, "list": str(path)}).split}
    )
    for _ in range(2):  # a run that is found done says it too
        split.run(params, prepared_phantoms, tmp_path / "split", tmp_path / "runs")
        said = capsys.readouterr().err
        assert f"warning: no training slice shows {', '.join(missing)}, so" in said
        assert "split: 1 train slices of 1, " in said and "next: hsam search" in said
    told = files.read_json(tmp_path / "split" / "split.json")
    assert told["organs_without_training_slices"] == missing


PATIENTS = {
    f"p{patient:02}_{scan}": 6 for patient in range(11) for scan in "abc"[: 1 + patient % 3]
}
GROUP = "^(p[0-9]+)_"


def patients(roles, role):
    return {case.partition("_")[0] for case in subjects(roles, role)}


@pytest.mark.parametrize("group", [None, GROUP])
def test_folds_test_every_case_once(group):
    tested = []
    for fold in range(4):
        given = blocks(folds=4, fold=fold, group=group, validation=0.2, subjects=2)
        roles = split.roles_from_settings(given, 1, shown(PATIENTS), CANONICAL)
        tested += subjects(roles, "test")
        if group is not None:
            sides = [patients(roles, role) for role in ("train", "validation", "test")]
            assert [len(side) for side in sides[:2]] == [2, 2]
            assert 2 <= len(sides[2]) <= 3
            assert len(set.union(*sides)) == sum(map(len, sides))
    assert sorted(tested) == sorted(PATIENTS)


@pytest.mark.parametrize("test", [0.3, 0.5])
def test_all_cases_of_a_subject_go_the_same_way(test):
    given = blocks(test=test, group=GROUP, validation=0.3)
    roles = split.roles_from_settings(given, 1, shown(PATIENTS), ())
    sides = [patients(roles, role) for role in ("train", "validation", "test")]
    assert len(sides[2]) == split.rounded(test * 11)
    assert len(set.union(*sides)) == sum(map(len, sides)) == 11


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 12, "fold": 0, "group": GROUP}, "12 asked for, there are 11 subjects"),
        (
            {"test": 0.2, "group": "^(q[0-9]+)"},
            r"finds no subject in p00_a, .* \(21 in all\)",
        ),
        ({"test": ["p01_a"], "group": GROUP}, "of p01 some cases are tested on and others aren't"),
    ],
)
def test_groups_and_folds_that_do_not_fit_the_cases(settings, message):
    with pytest.raises(UserError, match=message):
        split.roles_from_settings(blocks(**settings), 1, shown(PATIENTS), ())


def test_a_list_must_not_part_a_subject(tmp_path):
    rows = [("p01_a", "0", "train"), ("p01_b", "0", "test")]
    table = pd.DataFrame(rows, columns=["case", "slice", "role"])
    assert split.roles_from_list(table, PATIENTS, tmp_path)["p01_b", 0] == "test"
    with pytest.raises(UserError, match="p01"):
        split.roles_from_list(table, PATIENTS, tmp_path, GROUP)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 5}, "split.folds: says nothing without split.fold"),
        ({"fold": 0}, "split.fold: says nothing without split.folds"),
        ({"folds": 5, "fold": 5}, "5 folds are numbered 0 to 4, found 5"),
        ({"folds": 5, "fold": 1, "test": 0.2}, "set split.test to null"),
        ({"folds": 5, "fold": 1, "list": "a.csv"}, "set folds, fold to null"),
        ({"group": "p[0-9]+"}, "expected a regular expression with a group in brackets"),
        ({"group": "(p"}, "not a regular expression"),
    ],
)
def test_parameters_of_folds_that_contradict_each_other(settings, message):
    with pytest.raises(UserError, match=message):
        blocks(**settings)
