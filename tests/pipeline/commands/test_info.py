"""`hsam info`: what there is, at once."""

import json
import subprocess
import sys

import pytest

from hsam.backbones import BACKBONES
from hsam.registry import MODELS
from pipeline.commands import info
from pipeline.core import devices, installed
from pipeline.core.errors import UserError
from pipeline.core.registry import DATASETS
from tests.pipeline.conftest import ROOT

# of a machine with two cards, as the driver writes it
CARD = "Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ:   \t\t 186\nGPU UUID: \t GPU-{number}\n"


def test_the_json_has_every_table_and_imports_nothing_that_takes_long(tmp_path):
    code = (
        "import sys; from pipeline.cli import main; sys.argv = ['hsam', 'info', '--json']\n"
        "try: main()\n"
        "finally: print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    facts = json.loads(done.stdout)
    assert [model["name"] for model in facts["models"]] == list(MODELS)
    assert [encoder["name"] for encoder in facts["encoders"]] == list(BACKBONES)
    assert facts["data_sets"] == list(DATASETS)
    assert "la-4" in facts["presets"] and "table10" in facts["studies"]
    assert facts["home"] == str(ROOT)
    assert facts["devices"][0]["device"] == "cpu" and facts["devices"][0]["cores"] >= 1
    imported = set(done.stderr.split())
    assert "pipeline.commands.info" in imported
    assert not imported & {"torch", "pandas", "numpy", "rich.console", "ruamel.yaml"}


def test_weights_count_as_present_by_their_size(tmp_path, monkeypatch):
    monkeypatch.setenv("HSAM_WEIGHTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    file = BACKBONES["vit_b"].weights
    with (tmp_path / file.name).open("wb") as sparse:
        sparse.truncate(file.size)
    (tmp_path / BACKBONES["vit_l"].weights.name).write_bytes(b"cut")
    states = {e["name"]: e["weights"] and e["weights"]["state"] for e in info.gather()["encoders"]}
    assert states["vit_b"] == "present"
    assert states["vit_l"] == "damaged"
    assert states["vit_h"] == "missing"
    assert states["vit_tiny"] is None


def test_cards_are_read_from_the_drivers_files(tmp_path):
    for number in (1, 2):
        folder = tmp_path / f"0000:0{number}:00.0"
        folder.mkdir()
        (folder / "information").write_text(CARD.format(number=number))
    assert devices.gpus(tmp_path) == [
        {"device": "cuda:0", "name": "NVIDIA A100-SXM4-40GB", "uuid": "GPU-1"},
        {"device": "cuda:1", "name": "NVIDIA A100-SXM4-40GB", "uuid": "GPU-2"},
    ]


def test_cards_are_asked_of_nvidia_smi_where_the_driver_has_no_files(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100, PCIe, GPU-7'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    card = {"device": "cuda:0", "name": "NVIDIA H100, PCIe", "uuid": "GPU-7"}
    assert devices.gpus(tmp_path / "nowhere") == [card]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert devices.gpus(tmp_path / "nowhere") == []


def test_pytorchs_build_is_read_from_its_files():
    import torch

    version, software = installed.pytorch()
    assert version == torch.__version__
    assert software == (torch.version.cuda and f"CUDA {torch.version.cuda}")


def test_lines_for_people_fit_and_name_everything(capsys):
    info.run(as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= info.WIDTH
    text = " ".join(" ".join(lines).split())
    assert all(name in text for name in (*MODELS, *BACKBONES, *DATASETS))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("numpy<3,>=2.0", ("numpy", "<3,>=2.0", None)),
        ('dvc[s3]>=3 ; extra == "pipeline"', ("dvc", ">=3", "pipeline")),
        ('filelock>=3; sys_platform == "win32"', ("filelock", ">=3", None)),
    ],
)
def test_requirements_are_read_from_lines_of_metadata(monkeypatch, line, expected):
    monkeypatch.setattr(installed.metadata, "requires", lambda name: ["hsam[export]", line])
    assert [tuple(found[:3]) for found in installed.requirements()] == [expected]


def test_a_missing_package_of_an_extra_is_one_sentence(tmp_path):
    (tmp_path / "hsam-0.dist-info").mkdir()
    (tmp_path / "hsam-0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: hsam\nVersion: 0\n"
        'Requires-Dist: lightning-fabric>=2; extra == "pipeline"\n'
        'Requires-Dist: jinja2>=3; extra == "pipeline"\n'
    )
    hide = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    hide += "class Hidden:\n    def find_spec(self, name, path=None, target=None):\n"
    hide += "        if name in ('lightning_fabric', 'jinja2', 'nowhere'):\n"
    hide += "            raise ModuleNotFoundError(name, name=name)\n"
    code = "from pipeline.core import installed\nfor name in ('jinja2', 'nowhere'):\n"
    code += "    try: __import__(name)\n"
    code += "    except ModuleNotFoundError as error: print(installed.absent(error))\n"
    code = f"{hide}sys.meta_path.insert(0, Hidden())\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "this command: needs the Python package jinja2, which isn't installed; "
        "`pip install 'hsam[pipeline]'` brings it.",
        "None",
    ]


def test_work_is_refused_before_it_begins_where_its_packages_are_missing():
    with pytest.raises(UserError, match=r"hsam train: needs the Python packages no_a and no_b, wh"):
        installed.need(("json", "no_a", "no_b"), "pipeline", "hsam train")
    installed.need(("json",), "pipeline", "hsam train")
