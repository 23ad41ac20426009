"""Which edit of the code makes which stages' results out of date."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core import sources
from pipeline.core.params.blocks import READS, Params
from tests.pipeline.conftest import ROOT, make_params

STAGES = tuple(READS)
NOTHING: set[str] = set()
LEARN = {"search", "train"}
PREDICT = LEARN | {"evaluate"}


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for package in sources.PACKAGES:
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=skip)
    return folder


@pytest.fixture
def outdated(copied, monkeypatch) -> Callable[..., set[str]]:
    """A function that edits one file and gives the stages whose digest is another then."""
    monkeypatch.setattr(sources, "ROOT", copied)

    def digests(params: Params) -> dict[str, str]:
        return {s: sources.stage_digest(s, sources.chosen(s, params)) for s in STAGES}

    def edit(name: str, old: str, new: str, **changes: dict) -> set[str]:
        params = make_params(**changes)
        path = copied / name
        text = path.read_text()
        assert re.search(old, text, re.MULTILINE), f"{name} has no {old!r}"
        before = digests(params)
        path.write_text(re.sub(old, new, text, count=1, flags=re.MULTILINE))
        after = digests(params)
        path.write_text(text)
        return {stage for stage in STAGES if before[stage] != after[stage]}

    return edit


DOCSTRING = r'\A"""', '"""Another word. '
CODE = r"\Z", "\nEXTRA = 1\n"


@pytest.mark.parametrize(
    ("name", "edit", "expected"),
    [
        # words, types and layout change no result
        ("pipeline/core/console.py", DOCSTRING, NOTHING),
        ("pipeline/training/augment.py", DOCSTRING, NOTHING),
        ("pipeline/training/fit.py", (r"\Z", "\n# a comment\n"), NOTHING),
        ("pipeline/training/sampling.py", (r"-> Tensor", "-> object"), NOTHING),
        ("pipeline/shards/case.py", (r"IndexError\(.*\)", 'IndexError("no such slice")'), NOTHING),
        ("hsam/weights/published_adapter.py", DOCSTRING, NOTHING),
        ("hsam/weights/published_adapter.py", CODE, NOTHING),
        # what computes nothing
        ("pipeline/core/console.py", CODE, NOTHING),
        ("pipeline/core/errors.py", CODE, NOTHING),
        (
            "pipeline/core/params/blocks.py",
            (r"^class Evaluate\(Block\):", r"\g<0>\n    x: int"),
            NOTHING,
        ),
        ("pipeline/core/registry.py", (r"^DATASETS = {", r'\g<0>\n    "x": "m:X",'), NOTHING),
        (
            "hsam/registry.py",
            (r"^MODELS.*{$", r'\g<0>\n    "x": Model("X", "m:x", ("fine",)),'),
            NOTHING,
        ),
        (
            "hsam/backbones.py",
            (r"^BACKBONES.*{$", r'\g<0>\n    "x": sam_vit(8, 1, 1, (0,)),'),
            NOTHING,
        ),
        ("pipeline/cli/__init__.py", CODE, NOTHING),
        ("pipeline/commands/predict.py", CODE, NOTHING),
        # what was not chosen
        ("pipeline/datasets/la.py", CODE, NOTHING),
        ("hsam/rivals/unet.py", CODE, NOTHING),
        ("hsam/encoders/tiny_vit.py", CODE, NOTHING),
        # the rest
        ("pipeline/datasets/phantom.py", CODE, {"prepare", "report"}),
        ("pipeline/stages/prepare.py", CODE, {"prepare"}),
        ("pipeline/imaging/resize.py", CODE, {"prepare", *PREDICT}),
        ("pipeline/stages/split.py", CODE, {"split"}),
        ("pipeline/stages/search.py", CODE, {"search"}),
        ("pipeline/training/augment.py", CODE, LEARN),
        ("hsam/losses.py", CODE, LEARN),
        ("hsam/fine_decoder.py", CODE, PREDICT),
        ("hsam/lora.py", CODE, PREDICT),
        ("hsam/encoders/sam_vit.py", CODE, PREDICT),
        ("pipeline/inference/volume.py", CODE, PREDICT),
        ("pipeline/scoring/conventions.py", CODE, {"evaluate", "report"}),
        ("pipeline/reporting/page.py", CODE, {"report"}),
        ("pipeline/reporting/templates/layout.css", (r"\Z", "p {}"), {"report"}),
        ("pipeline/reporting/templates/report.html.j2", (r"\Z", "<p>"), {"report"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_an_edit_makes_out_of_date(outdated, name, edit, expected):
    assert outdated(name, *edit) == expected


def test_a_chosen_rival_counts_and_the_others_do_not(outdated):
    unet = {
        "train": {"model": "unet"},
        "search": {"space": {"lora_rank": None, "lambda_start": None}},
    }
    assert outdated("hsam/rivals/unet.py", *CODE, **unet) == PREDICT
    assert outdated("hsam/fine_decoder.py", *CODE, **unet) == NOTHING
    assert outdated("hsam/rivals/samed.py", *CODE, **unet) == NOTHING


def test_a_chosen_data_set_counts(outdated):
    left_atrium = {"dataset": {"name": "la", "root": "la"}}
    assert outdated("pipeline/datasets/la.py", *CODE, **left_atrium) == {"prepare", "report"}


def test_sizes_of_the_chosen_backbone_and_stages_of_the_chosen_model_count():
    chosen = sources.model("hsam", "vit_b")
    assert chosen != sources.model("hsam", "vit_l")
    assert sources.stage_digest("train", chosen) != sources.stage_digest(
        "train", sources.model("hsam", "vit_l")
    )
    assert sources.model("unet", "vit_b") == sources.model("unet", None)


def test_files_of_a_stage_hold_no_other_stage():
    for stage in STAGES:
        names = {path.as_posix() for path in sources.stage_files(stage)}
        assert {name for name in names if name.startswith("pipeline/stages/")} == {
            f"pipeline/stages/{stage}.py"
        }


def test_a_digest_is_the_same_in_every_process():
    code = (
        "from pipeline.core import sources\n"
        "print(sources.stage_digest('train', sources.model('hsam', 'vit_b')))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1
