"""The law of Dice along the number of labels."""

import numpy as np
import pandas as pd
import pytest

from pipeline.core.errors import UserError
from pipeline.studies import plan, writers
from pipeline.studies.curve import fit
from pipeline.studies.outcomes import outcomes
from pipeline.studies.sheets import sheets
from pipeline.studies.tables import tables
from tests.pipeline.studies.conftest import RANKS, write
from tests.pipeline.studies.outputs import RESULTS, finish

TABLES = RESULTS / "ranks" / "tables"
SHARES = (0.05, 0.1, 0.2, 0.4, 0.8)  # of 100 slices


def law(x: float) -> float:
    return 90 - 10 * (x / 80) ** -0.5


def made(workflow, dice, shares=SHARES):
    """Curve and its sheet of a study along `split.slices`, Dice a function of the share."""
    arms = {f"slices-{n}": {"split": {"slices": share}} for n, share in enumerate(shares)}
    curves, sheet = drawn(workflow, arms, {}, lambda params, seed: dice(params.split.slices, seed))
    (curve,) = curves.each
    return curve, sheet


def drawn(workflow, arms, changes, dice):
    """The curves of a study, and their sheet; Dice is a function of parameters and seed."""
    curve = {"along": "split.slices", **changes}
    content = RANKS | {"arms": arms, "reference": None, "curve": curve}
    write(workflow / "studies" / "ranks.yaml", content)
    plan.load.cache_clear()
    (study,) = plan.load("ranks")
    finish(study, lambda run, case, organ: dice(run.params, run.seed) / 100)
    found = tables(study, outcomes((study,), RESULTS))
    assert found.curves is not None
    writers.write(found, TABLES)
    return found.curves, next(sheet for sheet in sheets(found) if sheet.name == "curve")


def test_a_law_is_found_again():
    x = np.array([5.0, 10, 20, 40, 80])
    found = fit(x, np.array([law(value) for value in x]))
    assert (found.ceiling, found.shortfall) == pytest.approx((90, 10), abs=1e-2)
    assert found.power == pytest.approx(0.5, abs=1e-3)
    assert found.at(160) == pytest.approx(law(160), abs=1e-2)
    assert found.explained == pytest.approx(1)


def test_the_ceiling_is_no_higher_than_all():
    x = np.array([5.0, 10, 20, 40, 80])
    assert fit(x, 40 + 13 * np.log2(x / 5)).ceiling <= 100


def test_twice_the_labels_has_an_interval(workflow):
    curve, sheet = made(workflow, lambda share, seed: law(100 * share) + (seed - 1.5))
    assert [point.x for point in curve.points] == [5, 10, 20, 40, 80]
    last = curve.points[-1]
    assert last.dice == pytest.approx(80)
    assert last.at_twice == pytest.approx(law(160), abs=0.01)
    assert last.low == pytest.approx(law(160) - 0.5, abs=0.01)
    assert last.high == pytest.approx(law(160) + 0.5, abs=0.01)
    # seeds shift all sizes alike, so that the gain is known
    assert (last.gain_low, last.gain, last.gain_high) == pytest.approx((2.93,) * 3, abs=0.01)
    assert "twice the largest would give +2.93 points" in sheet.notes[0]


@pytest.mark.parametrize(
    ("dice", "shares", "why"),
    [
        (lambda share, seed: law(100 * share), SHARES[:3], "fewer than 4 sizes"),
        (lambda share, seed: 80 - 20 * share, SHARES, "Dice doesn't grow"),
        (lambda share, seed: 50 + (1000 * share) % 300 / 10, SHARES, "of the variance"),
    ],
    ids=["few sizes", "falling", "scattered"],
)
def test_what_cannot_be_said_is_not(workflow, dice, shares, why):
    curve, sheet = made(workflow, dice, shares)
    assert curve.law is None and why in str(curve.why)
    assert "cannot say" in sheet.notes[0]
    assert [point.dice for point in curve.points] == pytest.approx([dice(s, 1) for s in shares])


def test_each_model_has_a_curve_of_its_own(workflow):
    arms = {
        f"{model}-{n}": {"split": {"slices": share}, "train": {"model": model}}
        for model, shares in (("hsam", SHARES), ("unet", SHARES[1:4]))
        for n, share in enumerate(shares)
    }

    def dice(params, seed):
        return law(100 * params.split.slices) - 20 * (params.train.model == "unet")

    curves, sheet = drawn(workflow, arms, {"by": "train.model"}, dice)
    hsam, unet = curves.each
    assert (hsam.of, unet.of) == ("H-SAM", "U-Net")
    assert [point.x for point in unet.points] == [10, 20, 40]
    assert hsam.law is not None and hsam.law.at(160) == pytest.approx(law(160), abs=0.01)
    assert unet.law is None and "fewer than 4 sizes" in unet.why
    assert [note.partition(":")[0] for note in sheet.notes] == ["H-SAM", "U-Net"]
    assert len(sheet.rows) == len(SHARES) + 3
    for table in (pd.read_parquet(TABLES / "curve.parquet"), pd.read_csv(TABLES / "curve.csv")):
        assert table["of"].tolist() == ["H-SAM"] * len(SHARES) + ["U-Net"] * 3
        assert table["x"].tolist() == [point.x for curve in curves.each for point in curve.points]


@pytest.mark.parametrize("curve", [{"along": "split.slice"}, {"along": "seed"}, {"by": "train"}])
def test_a_curve_along_no_parameter_is_refused(workflow, curve):
    write(workflow / "studies" / "ranks.yaml", RANKS | {"curve": {"along": "split.slices"} | curve})
    plan.load.cache_clear()
    with pytest.raises(UserError, match=r"curve\.(along|by): .*a parameter, such as split\.slices"):
        plan.load("ranks")
