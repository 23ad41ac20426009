import json
import re
import shutil
import socket
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pandas as pd
import pytest

from pipeline.core import files
from pipeline.core.console import duration
from pipeline.core.errors import UserError
from pipeline.core.params.load import overlay, validate
from pipeline.datasets import synapse
from pipeline.reporting.browser import browser
from pipeline.reporting.first_screen import verdict
from pipeline.reporting.inputs import ReportFolders, read_inputs
from pipeline.reporting.page import STAGE_WORK, page
from pipeline.scoring.scores import SCORES
from pipeline.stages import evaluate, report

STAGES = ("prepare", "split", "train", "search", "evaluate")


@pytest.fixture
def params(run_params):
    return run_params


@pytest.fixture
def results(run_results) -> Path:
    return run_results


@pytest.fixture
def written(params, results, tmp_path):
    """Write a report into tmp_path; keywords change the block's values."""

    def run(results: Path = results, runs: str = "runs", **settings: int | str) -> str:
        block = params.report.model_copy(update=settings)
        changed = params.model_copy(update={"report": block})
        report.run(changed, folders_of(results), tmp_path / "reports", tmp_path / runs)
        return (tmp_path / "reports" / "report.html").read_text(encoding="utf-8")

    return run


@pytest.fixture
def inputs(results):
    return read_inputs(folders_of(results))


def folders_of(results: Path) -> ReportFolders:
    return ReportFolders(**{stage: results / stage for stage in STAGES})


class Outline(HTMLParser):
    """Tags, references and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.references.append(value)
            if name == "id":
                self.ids.append(value)


def words(html: str) -> str:
    html = re.sub(r"<(style|script|svg).*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL)
    return " ".join(unescape(html).split())


def test_it_stands_alone(written):
    html = written()
    outline = Outline(html)
    assert outline.references
    outside = [r for r in outline.references if not r.startswith(("#", "data:image/png;base64,"))]
    assert outside == []
    assert not {"link", "iframe", "object"} & set(outline.tags)
    assert re.findall(r"url\((?!#)|@import|javascript:|\son\w+=|<script[^>]*\ssrc", html) == []
    # a browser fetches nothing, whatever a script says
    assert "content=\"default-src 'none'; img-src data:;" in html
    # SVG's names are not addresses to fetch
    assert set(re.findall(r"https?://[^\"<\s]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert len(outline.ids) == len(set(outline.ids))


def test_it_says_what_came_out(written, results):
    text = words(written())
    scores = files.read_json(results / "evaluate" / "metrics.json")
    assert "H-SAM on phantoms" in text
    assert f"mean Dice {scores['mean_dice']:.3f}" in text
    assert f"mean HD95 {scores['mean_hd95_mm']:.2f} mm" in text
    assert scores["split"] in text
    assert "Trained on 23 slices of 2 cases, validated on 21 slices of 1 case" in text
    assert "scored on 2 other cases" in text
    table = pd.read_csv(results / "evaluate" / "cases.csv")
    for organ in synapse.ORGANS:
        rows = table[table["organ"] == organ]["dice"]
        assert f"{organ} {rows.mean():.3f} ± {rows.std():.3f}" in text
    for row in table.itertuples():
        assert f"{row.case} {row.organ} {row.dice:.3f}" in text


def test_the_sentence_on_empty_organs_counts_them(written, results):
    table = pd.read_csv(results / "evaluate" / "cases.csv")
    missed = ((table["truth_voxels"] > 0) & (table["predicted_voxels"] == 0)).sum()
    empty = ((table["truth_voxels"] == 0) | (table["predicted_voxels"] == 0)).sum()
    assert missed
    text = words(written())
    assert f"They differ on {empty} of 16 pairs of case and organ: {missed} where" in text
    assert f"strict (above) {table['dice'].mean():.3f}" in text
    counted = "counting Dice 0 and the volume's diagonal as HD95"
    verb = "is" if missed == 1 else "are"
    assert f"Of 16 pairs of case and organ {missed} {verb} missed, {counted}" in text


def test_tolerances_below_the_voxel_size_are_marked(written, results, inputs):
    sides = files.read_json(results / "evaluate" / "metrics.json")["voxel_mm"]
    assert sides["longest"] > 3  # phantoms of 32 pixels
    html = written()
    marked = "NSD at 2 mm (below voxel size)"
    headings = re.findall(r">([^<>]*NSD[^<>]*)</th>", html)
    assert headings.count(marked) == 2  # every score, every case
    sentence = "NSD at 3 mm (in 2 of 2 cases): the tolerance is below the voxel size ("
    assert sentence in words(html) and f"{sides['longest']:.4g} mm), so that" in words(html)
    fine = inputs.scores | {"voxel_mm": {"shortest": 1.0, "longest": 1.0}, "below_voxel": {}}
    html = report.render(page(replace(inputs, scores=fine)) | {"pictures": []})
    assert "voxel size" not in words(html) and "NSD at 2 mm" in html


@pytest.mark.parametrize(
    "pairs, expected",
    [
        ({"missed": 3, "invented": 0, "absent": 0}, {"strict": "–", "paper": 3, "nnunet": 3}),
        ({"missed": 0, "invented": 2, "absent": 5}, {"strict": "–", "paper": 7, "nnunet": 0}),
    ],
)
def test_pairs_that_conventions_count_otherwise(inputs, pairs, expected):
    scores = inputs.scores | {"pairs": {"all": 16, **pairs}}
    rows = page(replace(inputs, scores=scores))["conventions"]["rows"]
    found = {row["name"]: "–" if row["headline"] else row["differing"] for row in rows}
    assert {name: found[name] for name in expected} == expected


def test_few_cases_are_shown_by_their_values(written, results):
    """Two cases: an interval would be their minimum and maximum."""
    table = pd.read_parquet(results / "evaluate" / "organs.parquet")
    assert table["low"].isna().all() and table["high"].isna().all()
    cases = pd.read_parquet(results / "evaluate" / "cases.parquet")
    values = sorted(cases[cases["organ"] == "liver"]["dice"])
    assert ", ".join(f"{value:.3f}" for value in values) in words(written())


def test_intervals_of_many_cases_are_shown(inputs):
    organs = inputs.organs.assign(cases=12, low=inputs.organs["mean"] - 0.01)
    organs["high"] = organs["mean"] + 0.02
    row = organs[organs["convention"] == inputs.scores["convention"]]
    row = row.query("organ == 'liver' and score == 'dice'").iloc[0]
    html = report.render(page(replace(inputs, organs=organs)) | {"pictures": []})
    assert f"{row['low']:.3f} to {row['high']:.3f}" in words(html)


def test_stages_and_the_review_list(written, results, inputs):
    text = words(written())
    scores = files.read_json(results / "evaluate" / "metrics.json")
    means = [scores["stages"][stage]["mean_dice"] for stage in ("mean", "coarse", "fine")]
    assert "mean over organs " + " ".join(f"{value:.3f}" for value in means) in text
    worst = pd.read_csv(results / "evaluate" / "review.csv").iloc[0]
    slices = f"{worst['first']}"
    if worst["last"] != worst["first"]:
        slices += f"–{worst['last']}"
    place = f"{worst['case']} {slices} {worst['slice']} {worst['organ']} {worst['voxel']}"
    assert f"{place} {worst['expected_mm2']:.0f} {worst['error_mm2']:.0f}" in text
    review = scores["review"]
    assert f"hold {review['found_in_first']:.1%} of the true error area" in text
    assert f"{review['random']:.1%}, those of an ideal list {review['ideal']:.1%}." in text
    assert "the model's own probabilities" in text
    one = {key: value for key, value in inputs.scores.items() if key != "stages"}
    html = report.render(page(replace(inputs, scores=one)) | {"pictures": []})
    assert "<h2>Stages" not in html


def test_a_review_list_of_an_earlier_version_is_shown_without_what_it_lacks(inputs):
    lacking = {"random", "ideal", "of_ideal"}
    review = {key: v for key, v in inputs.scores["review"].items() if key not in lacking}
    old = replace(
        inputs,
        scores=inputs.scores | {"review": review},
        review=inputs.review.drop(columns="voxel"),
    )
    text = words(report.render(page(old) | {"pictures": []}))
    assert f"hold {review['found_in_first']:.1%} of the true error area. They" in text
    worst = inputs.review.iloc[0]
    assert f"{worst['slice']} {worst['organ']} {worst['expected_mm2']:.0f}" in text


def test_how_far_to_believe_a_prediction(written, inputs):
    assert "How far to believe a prediction" in (text := words(written()))
    assert "Cannot say: it takes 10 validation cases" in text
    judged = {"mean_absolute_error": 0.07, "coverage": 0.5, "mean_width": 0.2, "spearman": 0.9}
    about = {"level": 0.9, "calibrated_on": "12 test cases", "pairs": 2, **judged}
    columns = ("case", "organ", "predicted", "low", "high", "dice")
    rows = [("a", "liver", 0.9, 0.8, 0.95, 0.91), ("b", "aorta", 0.4, 0.3, 0.5, 0.61)]
    rows.append(("c", "spleen", None, None, None, 0.2))  # of which it can't say
    table = pd.DataFrame(rows, columns=columns)
    believed = replace(
        inputs, scores=inputs.scores | {"predicted_dice": about}, predicted_dice=table
    )
    text = words(report.render(page(believed) | {"pictures": []}))
    assert "off by 0.070 on average, rank correlation with the true Dice 0.90, 50% of" in text
    # the lowest first
    first = "b aorta 0.400 0.300 to 0.500 0.610 no"
    assert f"{first} a liver 0.900 0.800 to 0.950 0.910 yes" in text
    assert "c spleen" not in text


def test_test_cases_unlike_training_are_listed(written, results, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    path = tmp_path / "results" / "evaluate" / "metrics.json"
    scores = files.read_json(path) | {
        "unlike_training": {"img0004": ["liver: 3 ml, <in> training 900 ml.", "it is darker."]}
    }
    files.write_json(path, scores)
    text = words(written(results=tmp_path / "results"))
    assert (
        "1 of 2 cases, or their labels, are unlike what the model has learned from: img0004" in text
    )
    assert "img0004: liver: 3 ml, <in> training 900 ml. img0004: it is darker." in text
    files.write_json(path, scores | {"unlike_training": {}})
    assert "unlike" not in words(written(results=tmp_path / "results"))


def test_an_evaluation_from_before_predicted_dice_is_reported(written, results, tmp_path):
    shutil.copytree(results, tmp_path / "old")
    evaluated = tmp_path / "old" / "evaluate"
    (evaluated / "predicted_dice.parquet").unlink()
    scores = files.read_json(evaluated / "metrics.json")
    del scores["predicted_dice"]
    files.write_json(evaluated / "metrics.json", scores)
    assert "How far to believe" not in words(written(results=tmp_path / "old"))


def test_a_new_row_in_the_table_of_scores_is_shown(params, results, written, tmp_path, monkeypatch):
    new = replace(SCORES["volume_difference_ml"], name="new_ml", title="new score")
    monkeypatch.setitem(SCORES, new.name, replace(new, views=("summary", "comparison", "cases")))
    shutil.copytree(results, tmp_path / "results", ignore=shutil.ignore_patterns("evaluate"))
    folders = [tmp_path / "results" / stage for stage in ("prepare", "split", "train", "evaluate")]
    evaluate.run(params, *folders, tmp_path / "evaluations", device="cpu")
    html = written(results=tmp_path / "results")
    # full table, organs, cases; conventions; the three stages
    headings = re.findall(r">([^<>]*new score[^<>]*)</th>", html)
    label = "new score, ml"
    assert headings.count(label) == 3 and headings.count(f"mean {label}") == 1
    assert [h for h in headings if ": " in h] == [
        f"{label}: {s}" for s in ("mean", "coarse", "fine")
    ]
    mean = files.read_json(folders[-1] / "metrics.json")["mean_new_ml"]
    assert f"mean new score {mean:.1f} ml" in words(html)
    assert "new score: predicted minus true volume" in html


def test_scores_from_before_a_new_row_are_refused(written, results, monkeypatch):
    monkeypatch.setitem(SCORES, "new", replace(SCORES["iou"], name="new"))
    with pytest.raises(UserError, match="cases.parquet: no column new; evaluate the run again"):
        written(results=results)


@pytest.mark.parametrize("name, column", [("review", "first"), ("organs", "low")])
def test_tables_of_another_version_are_refused_by_what_they_lack(
    results, written, tmp_path, name, column
):
    shutil.copytree(results, tmp_path / "results")
    path = tmp_path / "results" / "evaluate" / f"{name}.parquet"
    pd.read_parquet(path).drop(columns=column).to_parquet(path)
    with pytest.raises(UserError, match=f"{name}.parquet: no column {column}; evaluate the run"):
        written(results=tmp_path / "results")


def test_metrics_of_another_version_are_refused_by_what_they_lack(results, written, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    path = tmp_path / "results" / "evaluate" / "metrics.json"
    metrics = files.read_json(path)
    del metrics["review"], metrics["voxel_mm"]
    files.write_json(path, metrics)
    with pytest.raises(UserError, match="metrics.json: no review; evaluate the run again"):
        written(results=tmp_path / "results")
    del metrics["pairs"]
    files.write_json(path, metrics)
    with pytest.raises(UserError, match="metrics.json: no pairs; evaluate the run again"):
        report.print_summary(path.parent, Path("reports/report.html"))


def test_the_first_screen_says_what_was_run_how_sure_and_what_next(written, results, inputs):
    html = written()
    text = words(html.split("<h2>Data</h2>")[0])
    assert (
        "H-SAM behind a small ViT, from random weights, trained whole, 32 px: trained on 23 slices "
        "of 2 cases, tested on 2 cases" in text
    )
    assert "; synthetic data." in text and "say nothing about patients" in text
    cost = files.read_json(results / "train" / "cost.json")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", cost["date"])
    epochs = f"{len(inputs.history)} epoch{'s' * (len(inputs.history) > 1)}"
    took = f"{duration(cost['seconds'])} on {cost['device']}, {cost['date']}"
    assert f"Trained for {epochs} in {took}." in text
    assert "2 cases can't say how far the mean would move with others: from 6 on" in text
    means = inputs.cases.groupby("organ", sort=False)["dice"].mean()
    assert f"The weakest organ is {means.idxmin()}, Dice {means.min():.3f}." in text
    assert "hsam predict scan.nii.gz --run results/train" in text
    assert text.count("more to know") <= 1 and html.count('class="remark caution"') <= 3
    organs = inputs.organs.assign(cases=12, low=0.25, high=0.75)
    html = report.render(page(replace(inputs, organs=organs)) | {"pictures": []})
    assert "would likely lie between 0.250 and 0.750" in words(html)


def test_the_first_screen_names_organs_of_which_nothing_is_found(inputs):
    found = inputs.cases.assign(dice=0.5, truth_voxels=9)
    assert verdict(replace(inputs, cases=found))[-1].startswith("No organ is missed altogether")
    row = found.iloc[0]
    found.loc[found.index[0], "dice"] = 0.0004  # something is predicted, elsewhere
    found.loc[found.index[1], ["dice", "truth_voxels"]] = [0.0, 0]  # there is nothing to find
    said = verdict(replace(inputs, cases=found))[-1]
    assert said == f"Missed altogether (Dice 0.000): {row.organ} of {row.case}."


def test_the_mean_with_every_error_counted_stands_beside_another_convention(inputs):
    scores = inputs.scores | {"convention": "paper"}
    organs = inputs.organs.assign(cases=12, low=0.25, high=0.75)
    strict = organs["convention"] == "strict"
    organs.loc[strict, ["mean", "low", "high"]] = [0.6, 0.5, 0.7]
    shown = page(replace(inputs, scores=scores, organs=organs)) | {"pictures": []}
    assert "strict: 0.600, 0.500 to 0.700" in words(report.render(shown))
    scores["convention"] = "strict"
    shown = page(replace(inputs, scores=scores, organs=organs)) | {"pictures": []}
    assert "strict: 0.600" not in words(report.render(shown))


def test_what_costs_are_not_known_is_not_said(inputs):
    html = report.render(
        page(replace(inputs, costs={}, trials=inputs.trials[:0])) | {"pictures": []}
    )
    assert "time and device weren't recorded." in words(html) and "What it cost" not in html


def test_every_stage_that_takes_long_says_what_it_cost(written, results, inputs):
    told = words(written().split("<h2>What it cost</h2>")[1].split("</section>")[0])
    assert f"search, all trials {duration(inputs.trials['seconds'].sum())} CPU" in told
    for stage, title in STAGE_WORK.items():
        if stage == "search":
            continue
        cost = files.read_json(results / stage / "cost.json")
        assert cost["seconds"] > 0
        memory = f"{cost['peak_memory_mib']:,} MiB"
        assert f"{title} {duration(cost['seconds'])} CPU {memory} {cost['date']}" in told


def test_left_atrium_data_come_with_a_remark(inputs, written):
    assert "cropped around" not in words(written())
    manifest = replace(inputs.manifest, name="la")
    html = report.render(page(replace(inputs, manifest=manifest)) | {"pictures": []})
    assert "are cropped around the true atrium" in words(html)


def test_training_and_search_are_shown(written, results):
    html = written()
    text = words(html)
    assert "2 epochs, 4 steps" in text
    trials = pd.read_csv(results / "search" / "trials.csv")
    best = trials.loc[trials["value"].idxmax()]
    assert "2 trials, valued by Dice on the validation slices" in text
    assert f"training took the best one's lora_rank {best['lora_rank']:.0f}" in text
    for trial in trials.itertuples():
        assert f"{trial.number} complete {trial.value:.4g} {trial.lora_rank} " in text
    named = re.findall(r'<svg role="(?:img|group)" aria-label="[^"]+" ', html)
    assert len(named) == len(re.findall('<svg (?!class="levels")', html))
    assert "Trial 0, the parameters as they stood where the space holds them, had" in text
    assert "<h3>History" in html and "<h3>Slice: dice_weight" in html
    titles = ("Loss", "Validation Dice", "Learning rate", "λ, weight")
    assert all(f"<h3>{title}" in html for title in titles)


def test_without_a_search_it_says_so(inputs):
    content = page(replace(inputs, trials=inputs.trials.iloc[:0], best={})) | {"pictures": []}
    html = report.render(content)
    assert "No search was run" in html and "trials-axes" not in html


def test_a_training_without_a_search_is_reported(written, results, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    shutil.rmtree(tmp_path / "results" / "search")
    with pytest.raises(UserError, match="search stage first"):  # the training had one
        written(results=tmp_path / "results")
    path = tmp_path / "results" / "train" / "provenance.json"
    provenance = json.loads(path.read_text())
    del provenance["inputs"]["search"]
    path.write_text(json.dumps(provenance))
    assert "No search was run" in words(written(results=tmp_path / "results"))


def test_failed_trials_are_shown_with_their_reason(written, results, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    path = tmp_path / "results" / "search" / "trials.csv"
    trials = pd.read_csv(path)
    trials.loc[1, ["state", "value"]] = ["failed", None]
    trials["reason"] = [None, "train: the loss is nan."]
    trials.to_csv(path, index=False)
    text = words(written(results=tmp_path / "results"))
    assert "1 failed – " in text and "train: the loss is nan." in text


def test_warnings_about_the_data_are_listed(inputs):
    rows = [replace(row, warnings=("axes are a <guess>.",)) for row in inputs.manifest]
    manifest = replace(inputs.manifest, rows=tuple(rows))
    html = report.render(page(replace(inputs, manifest=manifest)) | {"pictures": []})
    cases = ", ".join(row.case for row in rows)
    assert f">{cases}: axes are a &lt;guess&gt;.</" in html


def test_pictures_are_of_test_slices(written):
    html = written(slices=3)
    assert html.count("<img") == 12  # and the worst slice's
    link = r'<figcaption><a href="#case=(\w+)&amp;slice=(\d+)">\1, slice \2: '
    captions = re.findall(link, html)
    assert len(set(captions)) == 3
    assert {case for case, _ in captions} == {"img0004", "img0005"}
    html = written(slices=0, budget_mib=0)
    assert "<img" not in html and "No pictures were asked for" in html


def test_places_lead_to_the_case_browser(written, results):
    html = written()
    cases = pd.read_parquet(results / "evaluate" / "cases.parquet")
    ordered = cases.groupby("case")["dice"].mean().sort_values().index.to_list()
    islands = re.findall(r'class="browser-case">(.*?)</script>', html)
    assert [json.loads(island)["case"] for island in islands] == ordered
    links = [unescape(link) for link in re.findall(r'href="(#case=[^"]*)"', html)]
    row = pd.read_csv(results / "evaluate" / "review.csv").iloc[0]
    assert f"#case={row['case']}&slice={row['slice']}" in links
    for row in cases.dropna(subset="dice").itertuples():  # cells of two tables, a dot
        place = "#" + urlencode({"case": row.case, "organ": row.organ})
        assert links.count(place) == 3
        assert f"<title>{row.case}, {row.organ}: Dice {row.dice:.3f}</title>" in html
    without = written(budget_mib=0)
    assert "No case browser was asked for" in without
    assert "#case=" not in re.sub("<script.*?</script>", "", without, flags=re.DOTALL)


def test_the_browsers_budget_is_kept(inputs, results):
    folders = folders_of(results)
    whole = browser(folders, inputs, 1)
    every = sum(case["total"] for case in whole["cases"])
    assert whole["note"].startswith(f"All {every} slices of the 2 test cases")
    size = sum(len(s["image"] + s["labels"]) for case in whole["cases"] for s in case["slices"])
    less = browser(folders, inputs, size * 0.7 / 2**20)
    counts = [(len(case["slices"]), case["total"]) for case in less["cases"]]
    kept = sum(len(s["image"] + s["labels"]) for case in less["cases"] for s in case["slices"])
    assert kept <= 0.7 * size
    assert counts[0][0] == counts[0][1] and 0 < counts[1][0] < counts[1][1]  # the worst in full
    assert f"{sum(n for n, _ in counts)} of {every} slices are here: 1 of 2 cases" in less["note"]


def test_runs_that_cannot_stand_beside_are_refused(written, results, params, tmp_path):
    shutil.copytree(results, tmp_path / "same")
    with pytest.raises(UserError, match="report.beside: .*/same/evaluate is the run that"):
        written(beside=str(tmp_path / "same" / "evaluate"))
    with pytest.raises(UserError, match="report.beside: nothing-there: "):
        written(beside="nothing-there")
    paper = params.evaluate.model_copy(update={"convention": "paper", "stage": "fine"})
    folders = [results / stage for stage in ("prepare", "split", "train")]
    changed = params.model_copy(update={"evaluate": paper})
    evaluate.run(changed, *folders, tmp_path / "paper", tmp_path / "work", device="cpu")
    with pytest.raises(UserError, match="report.beside: .*expected convention strict"):
        written(beside=str(tmp_path / "paper"))
    strict = params.model_copy(
        update={"evaluate": params.evaluate.model_copy(update={"stage": "fine"})}
    )
    evaluate.run(strict, *folders, tmp_path / "fine", tmp_path / "work", device="cpu")
    html = written(beside=str(tmp_path / "fine"))
    assert "<h2>Beside fine</h2>" in html and str(tmp_path) not in html
    (tmp_path / "fine" / "predictions" / "img0004.nii.gz").unlink()
    with pytest.raises(UserError, match="no prediction of img0004; evaluate that run again"):
        written(beside=str(tmp_path / "fine"))


def test_a_missing_prediction_is_named(inputs, results, tmp_path):
    shutil.copytree(results / "evaluate", tmp_path / "evaluate")
    (tmp_path / "evaluate/predictions/img0004.nii.gz").unlink()
    folders = replace(folders_of(results), evaluate=tmp_path / "evaluate")
    with pytest.raises(UserError, match="img0004.nii.gz: there is no such file; run the evaluate"):
        browser(folders, inputs, 1)


def test_the_same_inputs_give_the_same_bytes(written):
    assert written(runs="a") == written(runs="b")


def test_a_second_run_renders_nothing(written, monkeypatch):
    first = written()
    monkeypatch.setattr(report, "render", None)
    assert written() == first


def test_nothing_tells_where_or_when_the_page_was_made(written, tmp_path, results):
    html = written()
    text = words(html)
    assert str(tmp_path) not in html and str(results.parent) not in html
    assert str(Path.home()) not in text and socket.gethostname() not in text
    # the data set's root is an absolute path in this test
    assert re.search(r"root …/phantom\d+", text)
    # the dates that the stages' outputs keep, training's twice, and no other
    costs = {
        path.parent.name: files.read_json(path)["date"] for path in results.glob("*/cost.json")
    }
    dates = re.findall(r"\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d\b", text)
    assert sorted(dates) == sorted([costs["train"], *costs.values()])


def test_windows_paths_lose_their_folders_too(inputs):
    provenance = {**inputs.provenance["train"], "params": {"a": {"b": "C:\\Users\\me\\sam.pth"}}}
    content = page(replace(inputs, provenance={"train": provenance}))
    assert content["parameters"] == [{"name": "a", "rows": [("b", "…/sam.pth")]}]


def test_names_are_escaped(inputs):
    name = "<script>alert('liver')</script> & $x$"
    organs = [name, *inputs.manifest.class_names[1:]]
    old = inputs.manifest.class_names[0]
    tables = {
        table: getattr(inputs, table).replace({"organ": {old: name}})
        for table in ("cases", "organs", "stages", "review")
    }
    manifest = replace(inputs.manifest, class_names=organs)
    html = report.render(page(replace(inputs, manifest=manifest, **tables)) | {"pictures": []})
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;") >= 3


def test_what_is_left_out_is_a_dash(inputs):
    organ = inputs.manifest.class_names[0]
    organs = inputs.organs.copy()
    organs.loc[organs["organ"] == organ, ["mean", "sd", "low", "high"]] = None
    organs.loc[organs["organ"] == organ, "cases"] = 0
    cases = inputs.cases.copy()
    cases.loc[cases["organ"] == organ, list(SCORES)] = None
    content = page(replace(inputs, organs=organs, cases=cases))
    nothing = {"mean": None, "sd": None, "low": None, "high": None, "cases": 0}
    nothing["values"] = []
    assert content["organs"][0]["dice"] == nothing
    assert "nan" not in words(report.render(content | {"pictures": []})).lower().split()


def test_missing_files_are_all_named_and_the_old_report_stays(written, results, tmp_path):
    old = written()
    shutil.copytree(results, tmp_path / "broken")
    (tmp_path / "broken" / "search" / "trials.csv").unlink()
    (tmp_path / "broken" / "evaluate" / "metrics.json").unlink()
    with pytest.raises(UserError) as error:
        written(results=tmp_path / "broken")
    assert len(error.value.problems) == 2
    assert "trials.csv" in str(error.value) and "run the evaluate stage" in str(error.value)
    assert (tmp_path / "reports" / "report.html").read_text(encoding="utf-8") == old


@pytest.mark.parametrize("name", ["metrics.json", "cases.parquet"])
def test_damaged_files_are_named(written, results, tmp_path, name):
    shutil.copytree(results, tmp_path / "broken")
    (tmp_path / "broken" / "evaluate" / name).write_text("torn")
    with pytest.raises(UserError, match=f"{name}: damaged .* again"):
        written(results=tmp_path / "broken")


@pytest.mark.parametrize(
    "name",
    [
        "evaluate/metrics.json",
        "evaluate/provenance.json",
        "train/provenance.json",
        "train/model.json",
    ],
)
def test_records_that_are_no_mappings_are_damaged(written, results, tmp_path, name):
    shutil.copytree(results, tmp_path / "broken")
    (tmp_path / "broken" / name).write_text("[]")
    with pytest.raises(UserError, match=f"{name}: damaged .* again"):
        written(results=tmp_path / "broken")


@pytest.mark.parametrize("name", ["evaluate/organs", "evaluate/review", "train/history"])
def test_tables_without_their_columns_are_damaged(written, results, tmp_path, name):
    shutil.copytree(results, tmp_path / "broken")
    path = next((tmp_path / "broken").glob(f"{name}.*"))
    if path.suffix == ".csv":
        path.write_text("epoch,train_loss\n1,x\n")
    else:
        path = path.with_suffix(".parquet")
        pd.read_parquet(path).iloc[:, :1].to_parquet(path)
    with pytest.raises(UserError, match=f"{path.name}: .*no column"):
        written(results=tmp_path / "broken")


@pytest.mark.parametrize("name", ["cases", "organs", "stages"])
def test_tables_without_their_rows_are_damaged(written, results, tmp_path, name):
    shutil.copytree(results, tmp_path / "broken")
    path = tmp_path / "broken" / "evaluate" / f"{name}.parquet"
    table = pd.read_parquet(path)
    table[table["organ"] != "liver"].to_parquet(path)
    with pytest.raises(UserError, match=f"{name}.parquet: damaged .no row of .*liver"):
        written(results=tmp_path / "broken")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_scores_of_another_model(written, results, tmp_path, name):
    """Another training of the same architecture differs in its weights alone."""
    shutil.copytree(results, tmp_path / "mixed")
    with (tmp_path / "mixed" / "train" / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match=f"another {name} .* run the evaluate stage again"):
        written(results=tmp_path / "mixed")


@pytest.mark.parametrize(
    "stage, name", [("split", "manifest"), ("search", "split"), ("train", "search")]
)
def test_stages_of_different_runs_are_refused(written, results, tmp_path, stage, name):
    shutil.copytree(results, tmp_path / "mixed")
    path = tmp_path / "mixed" / stage / "provenance.json"
    record = files.read_json(path)
    record["inputs"][name] = "0" * 64
    files.write_json(path, record)
    with pytest.raises(UserError, match=f"{stage}: was made from another {name} .0000"):
        written(results=tmp_path / "mixed")


def test_the_title_names_the_model_that_was_run(inputs):
    for name, title in (("samed", "SAMed"), ("unet", "U-Net"), ("hsam", "H-SAM")):
        model = inputs.model | {"config": {**inputs.model["config"], "model": name}}
        html = report.render(page(replace(inputs, model=model)) | {"pictures": []})
        assert f"<title>{title} on phantom</title>" in html


def test_parameters_are_those_of_the_stages(params, results, tmp_path):
    later = validate(overlay(params.model_dump(mode="json"), {"train": {"epochs": 16}}), "test")
    where = tmp_path / "reports", tmp_path / "runs"
    with pytest.raises(UserError, match="train.epochs: the train stage was run with 2, .* say 16"):
        report.run(later, folders_of(results), *where)
    assert not where[0].exists()
    # of a run that was named, its own parameters count
    assert report.run(later, folders_of(results), *where, other_run=True) == params


def test_parameters_that_do_not_go_with_the_stages_leave_no_page(params, results, tmp_path):
    copy = shutil.copytree(results, tmp_path / "results")
    record = files.read_json(copy / "train" / "provenance.json")
    record["params"]["train"]["cache_embeddings"] = 2
    files.write_json(copy / "train" / "provenance.json", record)
    where = tmp_path / "reports", tmp_path / "runs"
    with pytest.raises(UserError, match="cache_embeddings: .*(?s:.)*--params"):
        report.run(params, folders_of(copy), *where, other_run=True)
    assert not where[0].exists()


def test_a_named_run_is_reported_with_its_own_evaluation(results, tmp_path):
    assert ReportFolders.find(tmp_path, results / "train") == folders_of(results)
    (run,) = (results.parent / "runs").glob("phantom-train-*")
    found = ReportFolders.find(results, run / "out")
    assert found == replace(folders_of(results), train=run / "out")


def test_a_model_of_another_split_is_no_secret(inputs):
    split = {**inputs.provenance["train"]["inputs"], "split": "0" * 64}
    train = {**inputs.provenance["train"], "inputs": split}
    content = page(replace(inputs, provenance={**inputs.provenance, "train": train}))
    assert any("trained on another split" in text for text in content["first"]["warnings"])
    assert not any("another split" in text for text in page(inputs)["first"]["warnings"])


def test_other_files_in_the_reports_folder_stay(written, tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "mine.html").write_text("mine")
    written()
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == [
        "mine.html",
        "report.html",
    ]


def test_summary_on_the_terminal(results, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    report.print_summary(results / "evaluate", Path("reports/report.html"))
    printed = capsys.readouterr().out
    scores = files.read_json(results / "evaluate" / "metrics.json")
    for organ in synapse.ORGANS:
        assert re.search(rf"{organ} .* {scores['dice'][organ]:.3f} ", printed)
    assert re.search(rf"mean .* {scores['mean_dice']:.3f} ", printed)
    assert printed.endswith("report: reports/report.html\n")


def test_summary_without_scores(tmp_path):
    with pytest.raises(UserError, match="run the evaluate stage first"):
        report.print_summary(tmp_path, tmp_path / "report.html")
