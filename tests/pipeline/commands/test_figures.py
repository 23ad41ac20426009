import re
import shutil
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from PIL import Image

from pipeline.commands import figures as figures_command
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.datasets.synapse import label_path
from pipeline.reporting.look import Look, parse_width
from pipeline.reporting.pictures import read_figure_data
from pipeline.reporting.slice_rows import worst_slices, zoom_slices
from pipeline.scoring.runs import read_runs
from pipeline.shards.manifest import read_manifest
from pipeline.stages import prepare, split
from tests.pipeline.conftest import save_nifti
from tests.pipeline.runs import measured, write_run
from tests.pipeline.stages.test_evaluate import evaluate_into, evaluate_two, save_model
from tests.pipeline.test_cli import hsam as command
from tests.pipeline.test_cli import refused


@pytest.fixture(scope="module")
def runs(phantom_params, prepared_phantoms, tmp_path_factory):
    """Evaluated runs of a model with two stages and of one with one; read only."""
    one, two = evaluate_two(tmp_path_factory.mktemp("runs"), phantom_params, prepared_phantoms)
    return [two, one]


@pytest.fixture(scope="module")
def drawn(runs, prepared_phantoms, tmp_path_factory):
    out = tmp_path_factory.mktemp("figures")
    names = ["two stages", "one stage"]
    figures_command.run(runs, prepared_phantoms, out, names=names, slices=2)
    return out


def test_every_figure_and_table_is_there_in_each_form(drawn):
    figures = ["boxes-dice", "boxes-hd95_mm", "boxes-nsd_2mm", "disagreement-two-stages"]
    figures += ["slices", "stages-two-stages", "zoom"]
    tables = ["table-dice", "table-hd95_mm", "table-nsd_2mm"]
    expected = [f"{name}.{form}" for name in figures for form in ("pdf", "png", "svg")]
    expected += [f"{name}.{form}" for name in tables for form in ("md", "tex")]
    assert sorted(path.name for path in drawn.iterdir()) == sorted(expected)
    for path in drawn.glob("*.png"):
        assert np.ptp(imread(path)) > 0.5
    for path in drawn.glob("*.svg"):
        text = path.read_text()
        ElementTree.fromstring(text)
        assert "<dc:date>" not in text and "liver" in text
    label = "NSD at 2 mm (below voxel size)"
    assert label in (drawn / "boxes-nsd_2mm.svg").read_text()
    assert label in (drawn / "table-nsd_2mm.tex").read_text()
    assert "| organ | two stages | one stage |" in (drawn / "table-dice.md").read_text()


@pytest.fixture(scope="module")
def narrow(runs, prepared_phantoms, tmp_path_factory):
    """Figures of one run in a column's width."""
    out = tmp_path_factory.mktemp("narrow")
    look = Look(parse_width("single"))
    figures_command.run(runs[1:], prepared_phantoms, out, slices=1, look=look)
    return out


@pytest.mark.parametrize(("folder", "mm"), [("drawn", 180), ("narrow", 85)])
def test_figures_are_as_wide_as_asked_at_300_dots_per_inch(request, folder, mm):
    out = request.getfixturevalue(folder)
    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width == pytest.approx(mm / 25.4 * 300, abs=1)
            assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    for path in out.glob("*.pdf"):
        (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) [\d.]+ \]", path.read_bytes())
        assert float(box) == pytest.approx(mm / 25.4 * 72, abs=0.01)
    for path in out.glob("*.svg"):
        found = ElementTree.parse(path).getroot().get("width")
        assert float(found.removesuffix("pt")) == pytest.approx(mm / 25.4 * 72, abs=0.01)


def test_pdfs_embed_their_fonts_as_truetype_and_have_no_date(drawn):
    for path in drawn.glob("*.pdf"):
        content = path.read_bytes()
        assert b"/FontFile2" in content and b"/Type3" not in content
        assert b"Date" not in content and b"Matplotlib" not in content


def test_each_run_has_its_own_mean_over_all_cases_below_its_name(runs, drawn):
    means = [files.read_json(folder / "metrics.json")["mean_dice"] for folder in runs]
    for name in ("slices", "zoom"):
        text = (drawn / f"{name}.svg").read_text()
        assert all(f"Dice\u00a0{mean:.3f}" in text for mean in means)
    assert f"Dice\u00a0{means[0]:.3f}" in (drawn / "stages-two-stages.svg").read_text()


def test_test_cases_without_any_organ(phantom_params, tmp_path):
    shutil.copytree(phantom_params.dataset.root, tmp_path / "raw")
    dataset = phantom_params.dataset.model_copy(update={"root": str(tmp_path / "raw")})
    params = phantom_params.model_copy(update={"dataset": dataset})
    for case in ("img0004", "img0005"):
        path = label_path(tmp_path / "raw", case)
        label = nib.load(path)
        save_nifti(path, np.zeros(label.shape, np.uint8), label.affine)
    folders = {"prepared": tmp_path / "prepare", "split": tmp_path / "split"}
    prepare.run(params, folders["prepared"], tmp_path / "runs")
    split.run(params, *folders.values(), tmp_path / "runs")
    manifest = read_manifest(folders["prepared"] / "manifest.parquet")
    save_model(tmp_path / "model", manifest, "hsam")
    evaluate_into(tmp_path / "run", params, model=tmp_path / "model", **folders)
    figures_command.run([tmp_path / "run" / "out"], folders["prepared"], tmp_path / "out")
    drawn = {path.stem for path in (tmp_path / "out").iterdir()}
    assert "slices" in drawn and "boxes-dice" in drawn and "zoom" not in drawn


def test_the_same_seed_gives_the_same_bytes_and_progress_a_line_a_figure(
    runs, prepared_phantoms, drawn, tmp_path, capsys
):
    names = ["two stages", "one stage"]
    figures_command.run(runs, prepared_phantoms, tmp_path, names=names, slices=2)
    for path in drawn.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
    said = capsys.readouterr().err.splitlines()
    named = [line.split()[2] for line in said if line.startswith("figures ")]
    assert sorted(named) == sorted(path.stem for path in drawn.glob("*.png"))


def test_the_seed_chooses_the_slices(runs, prepared_phantoms):
    def names(seed):
        data = read_figure_data(prepared_phantoms, read_runs(runs, ["a", "b"]))
        figure = figures_command.plan(data, 2, np.random.default_rng(seed), Look())["slices"]()
        return [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]

    assert names(0) != names(1)


def test_one_run_and_several_show_the_same_slices(runs, prepared_phantoms):
    def names(folders):
        data = read_figure_data(prepared_phantoms, read_runs(folders, list("ab")[: len(folders)]))
        figures = figures_command.plan(data, 2, np.random.default_rng(0), Look())
        return {key: [a.get_ylabel() for a in figures[key]().axes] for key in ("slices", "zoom")}

    alone, both = names(runs[:1]), names(runs)
    for key in alone:
        assert [n for n in alone[key] if n] == [n for n in both[key] if n] != []


def test_zoomed_organs_are_small_and_on_the_slice(runs, prepared_phantoms):
    data = read_figure_data(prepared_phantoms, read_runs(runs, ["a", "b"]))
    found = zoom_slices(data, 3, data.runs[0].case_ids)
    sizes = sum(data.counts(case).sum(0) for case in data.runs[0].case_ids)
    assert len(set(found)) == len(found) == 3
    for case, index, organ in found:
        assert data.counts(case)[index, organ] == data.counts(case)[:, organ].max() > 0
        assert data.organs[organ] != "liver" and sizes[organ] < sizes.max()


def test_the_worst_disagreements_come_first_and_once(runs, prepared_phantoms):
    (run,) = read_runs(runs[:1])
    worst = worst_slices(run, 5)
    assert len({(case, index) for case, index, *_ in worst}) == 5
    review = pd.read_parquet(run.folder / "review.parquet")
    review = review.drop_duplicates(["case", "slice"])
    assert [(case, index) for case, index, *_ in worst] == list(
        zip(review["case"][:5], review["slice"][:5], strict=True)
    )
    assert review["expected_mm2"].is_monotonic_decreasing


def test_runs_without_predictions_or_on_other_data(runs, prepared_phantoms, tmp_path):
    scored = write_run(tmp_path / "scored", measured(1))
    with pytest.raises(UserError, match="no predictions there"):
        figures_command.run([scored], prepared_phantoms, tmp_path / "out")
    shutil.copytree(runs[0], tmp_path / "other")
    record = files.read_json(tmp_path / "other" / "provenance.json")
    record["inputs"]["manifest"] = "0" * 64
    files.write_json(tmp_path / "other" / "provenance.json", record)
    with pytest.raises(UserError, match="other data than"):
        figures_command.run([tmp_path / "other"], prepared_phantoms, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(runs, tmp_path):
    for width in ("triple", "20", "nan"):
        said = refused(command("figures", str(runs[0]), "--width", width, cwd=tmp_path))
        assert "single (85 mm), double (180 mm) or 40 to 500" in said and width in said
    assert "manifest.parquet" in refused(command("figures", str(runs[0]), cwd=tmp_path))
