"""The page of a study, on runs whose scores are made by hand."""

import re
import shutil
from html import unescape
from pathlib import Path

import pytest

from pipeline.commands import study as commands
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.reporting import study_page
from pipeline.studies import plan
from pipeline.studies.outcomes import arms, outcomes
from tests.pipeline.pages import SMALL
from tests.pipeline.studies.conftest import PRESET, RANKS, write
from tests.pipeline.studies.outputs import RESULTS, finish

DICE = {("rank-1", 1): 0.5, ("rank-1", 2): 0.7, ("rank-4", 1): 0.8, ("rank-4", 2): 0.9}


def score(run, case, organ) -> float:
    """By arm and seed, the same in every case but for a little."""
    return DICE[run.arm, run.seed] + 0.01 * "abcdef".index(case)


def study(folder, name="ranks", **changes):
    write(folder / "studies" / f"{name}.yaml", RANKS | changes)
    plan.load.cache_clear()
    return plan.load(name)


def page(name="ranks", on=()) -> str:
    return study_page.render(study_page.read(name, on, RESULTS))


def words(html: str) -> str:
    html = re.sub(r"<(style|svg|script).*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL)
    return " ".join(unescape(html).split())


@pytest.fixture
def finished(workflow):
    """The folder of the workflow, with all four runs of `ranks` finished."""
    finish(study(workflow)[0], score)
    return workflow


def test_it_says_what_was_run(finished):
    text = words(page())
    assert "On phantoms: 2 arms, 1 draw of slices, 2 seeds; 4 runs, all finished." in text
    assert "rank-1/draw-7-seed-1 done 52.50" in text
    assert "Each is trained on 50 slices of 1 case and tested on 6 other cases." in text
    assert "4 trainings, 36 seconds in all on CPU." in text
    assert "What all runs have in common" in text
    assert "model H-SAM encoder a small ViT image side, pixels 128" in text
    assert "convention strict: an organ that is neither there nor predicted is left out," in text


def test_phantoms_are_synthetic_in_the_first_line(finished):
    html = page()
    shown = words(html.partition('<main class="study">')[2])
    assert shown.startswith("Synthetic: these runs are on phantoms")
    assert "<title>Synthetic: Rank</title>" in html


def test_it_stands_alone(finished):
    html = page()
    assert re.findall(r'(?:src|href)="(?!#|data:image/png;base64,)[^"]*"', html) == []
    assert not re.search(r"<script [^>]*src|<link|@import|url\((?!#)", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert ids and len(ids) == len(set(ids))


def test_the_same_outputs_give_the_same_bytes(finished):
    assert page() == page()


def test_unfinished_runs_are_told_apart(finished):
    shutil.rmtree(RESULTS / "ranks" / "rank-1" / "draw-7-seed-2")
    text = words(page())
    assert "4 runs, 3 finished." in text and "rank-1/draw-7-seed-2 not trained yet –" in text


def test_without_any_finished_run_there_is_no_page(workflow):
    study(workflow)
    with pytest.raises(
        UserError, match="ranks: none of its runs is finished in results; run snake"
    ):
        page()


def test_costs_are_known_or_unknown(finished):
    place = RESULTS / "ranks" / "rank-1"
    first = {"seconds": 60.0, "devices": 2, "device": "H100", "peak_memory_mib": 2048}
    files.write_json(place / "draw-7-seed-1" / "train" / "cost.json", first)
    (place / "draw-7-seed-2" / "train" / "cost.json").unlink()
    files.write_json(place / "draw-7-seed-1" / "evaluate" / "cost.json", first | {"seconds": 5.0})
    files.write_json(place / "draw-7-seed-2" / "evaluate" / "cost.json", first | {"seconds": 9.0})
    text = words(page())
    assert (
        "rank-1 2 2 × H100 1.0 minutes 2.0 minutes, of 1 of them 2,048 MiB 7 seconds (5 seconds to "
        "9 seconds)" in text
    )
    assert "rank-4 2 CPU 9 seconds 18 seconds unknown" in text
    assert "all, shared ones once 4 2 × H100, CPU" in text


def test_where_nothing_was_trained_nothing_is_unknown(finished):
    shutil.rmtree(RESULTS / "ranks" / "rank-1")
    assert "rank-1 0 – – – – – rank-4 2 CPU 9 seconds" in words(page())


def test_a_collection_is_a_section_a_study(finished):
    more = RANKS | {"title": "Others", "seeds": [3], "figures": ["models"]}
    write(finished / "studies" / "more.yaml", more)
    write(finished / "studies" / "all.yaml", {"title": "All <b>", "studies": ["ranks", "more"]})
    html = page("all")
    assert re.findall(r'<section id="([^"]+)"', html) == ["ranks", "more"]
    assert "All &lt;b&gt;" in html and "None of its runs is finished yet." in html
    assert "do what is left, 2 of 6 runs: snakemake --cores all -- reports/all.html" in words(html)
    alone = "this study's own page, with every case: hsam study ranks --report reports/ranks.html"
    assert alone in words(html) and alone not in words(page())


def cells(html: str) -> list[list[str]]:
    """The rows of the main table, head first."""
    table = html.partition("<table")[2].partition("</table>")[0]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table, flags=re.DOTALL)
    return [[words(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


def test_the_table_has_a_column_for_what_arms_set(finished):
    head, first, second = cells(page())
    assert head[:3] == ["arm", "LoRA rank", "mean Dice, %"]
    assert first[:2] == ["rank-1", "1"] and second[:2] == ["rank-4", "4"]
    assert first[2].startswith("62.50 ± 14.14") and second[2].startswith("87.50 ± 7.07")


def test_switches_organs_and_quoted_rows_as_in_the_paper(finished):
    arms = {
        "off": {"train": {"pixel_decoder": False, "cache_embeddings": 0}},
        "on": {"train": {"pixel_decoder": True}},
    }
    published = {"on": {"dice": 80.0, "hd95": 9.0, "organs": {"liver": 94.29}}}
    quoted = [{"method": "MagicNet", "dice": 75.53, "note": "13 scans", "source": "table 9"}]
    parts = study(finished, "parts", arms=arms, reference="on", published=published, quoted=quoted)
    finish(parts[0], lambda run, case, organ: 0.5)
    head, other, off, on = cells(page("parts"))
    assert head[:5] == ["arm", "pixel decoder", "trained with", "liver", "spleen"]
    assert other[:3] == ["MagicNet table 9", "–", "13 scans"] and "75.53" in other
    assert off[1] == "✗" and on[1] == "✓"
    assert on[3] == "50.00 ± 0.00 paper 94.29" and off[3] == "50.00 ± 0.00"
    assert on[head.index("published")] == "80.00"
    assert "difference" not in head and "verdict" not in head  # phantoms


def test_what_arms_set_is_said_in_words_or_as_its_key(finished):
    frozen = {"backbone": "litemedsam", "sam_checkpoint": "auto", "train_encoder": False}
    params = {
        "frozen": {"train": frozen | {"lora_rank": 0, "cache_embeddings": 2}},
        "unet": {"train": {"model": "unet"}},
        "whole": {"train": {"betas": [0.8, 0.9], "augment": {"noise": 0.1}}},
    }
    found = study(finished, "words", arms=params, reference=None)
    finish(found[0], lambda run, case, organ: 0.5)
    html = page("words")
    head, *rows = cells(html)
    assert head[:5] == ["arm", "encoder", "model", "train.augment.noise", "train.betas"]
    assert "<code>train.augment.noise</code>" in html
    assert [row[1:5] for row in rows] == [
        ["LiteMedSAM's encoder, frozen", "H-SAM", "0", "0.9, 0.999"],
        ["–", "U-Net", "0", "0.9, 0.999"],
        ["a small ViT, from random weights, trained whole", "H-SAM", "0.1", "0.8, 0.9"],
    ]


def test_other_data_than_phantoms_get_a_verdict(finished):
    preset = PRESET | {"dataset": {"name": "synapse", "root": "data/raw/synapse"}}
    write(finished / "presets" / "small.yaml", preset)
    found = study(finished, published={"rank-1": {"dice": 62.0}, "rank-4": {"dice": 99.0}})
    finish(found[0], score)
    html = page()
    head, first, second = cells(html)
    assert "Synthetic" not in html
    verdict = head.index("verdict")
    assert second[head.index("difference")] == "-11.50"
    assert first[verdict] and second[verdict]
    assert f"rank-4: {second[verdict]}, " in words(html)
    assert "Published means of Dice: 2 cannot say." in answer(html)


def test_the_labels_curve_is_drawn(finished):
    arms = {f"slices-{n}": {"split": {"slices": n / 100}} for n in (5, 10, 25, 50, 100)}
    curve = {"along": "split.slices"}
    found = study(finished, "labels", arms=arms, reference=None, curve=curve)
    finish(found[0], lambda run, case, organ: 0.9 - 0.02 * run.params.split.slices**-0.8)
    html = page("labels")
    assert "Dice along labelled slices" in html and "twice the labels" in html
    assert "labels-curve-" in html


def test_runs_of_one_draw_and_seed_are_shown_side_by_side(finished):
    shutil.rmtree(RESULTS / "ranks" / "rank-1" / "draw-7-seed-1")
    found = {
        arm: [o for o in runs if o.done]
        for arm, runs in arms(outcomes(plan.load("ranks"), RESULTS)).items()
    }
    chosen = study_page.same_runs(found)
    assert {arm: o.run.seed for arm, o in chosen.items()} == {"rank-1": 2, "rank-4": 2}


def tables_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_command_writes_page_and_tables_the_same_every_time(finished):
    out, folder = Path("reports/ranks.html"), RESULTS / "ranks" / "tables"
    commands.write_report("ranks", (), RESULTS, out)
    first = out.read_bytes(), tables_of(folder)
    assert {"arms.csv", "arms.tex", "runs.parquet"} <= set(first[1])
    commands.write_report("ranks", (), RESULTS, out)
    assert (out.read_bytes(), tables_of(folder)) == first


def test_tables_of_a_collection_lie_in_a_folder_a_study(finished):
    write(finished / "studies" / "all.yaml", {"title": "All", "studies": ["ranks"]})
    commands.write_report("all", (), RESULTS, Path("all.html"))
    assert (RESULTS / "all" / "tables" / "ranks" / "arms.csv").is_file()
    assert not (RESULTS / "ranks" / "tables").exists()


def test_a_refused_page_leaves_the_old_one(workflow):
    study(workflow)
    out = Path("ranks.html")
    out.write_text("the old one")
    for name, why in ((None, "of which study"), ("no", "no such study"), ("ranks", "finished")):
        with pytest.raises(UserError, match=why):
            commands.write_report(name, (), RESULTS, out)
    assert out.read_text() == "the old one" and not (RESULTS / "ranks").exists()


def test_its_tables_sort_in_a_browser(finished, chromium):
    path = finished / "ranks.html"
    path.write_text(page(), encoding="utf-8")
    with chromium.new_context(offline=True) as context:
        opened = context.new_page()
        problems: list[str] = []
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.goto(path.as_uri())
        table = opened.locator("main table").first
        arms_shown = table.locator("tbody tr td:first-child")
        before = arms_shown.all_inner_texts()
        table.locator("th button.sort", has_text="Dice").first.click()
        rising = arms_shown.all_inner_texts()
        table.locator("th button.sort", has_text="Dice").first.click()
        assert arms_shown.all_inner_texts() == rising[::-1] and sorted(rising) == sorted(before)
        assert opened.evaluate(SMALL) == []
        figure = opened.locator(".plots figure").first
        figure.locator("svg").focus()
        opened.keyboard.press("ArrowLeft")
        said = figure.locator(".values").inner_text()
        assert said == "epoch 1: rank-1 0.5 (0.5 to 0.5), rank-4 0.5 (0.5 to 0.5)"
        assert problems == []


def answer(html: str) -> str:
    return words(html.partition('<p class="answer">')[2].partition("</p>")[0])


def test_the_head_says_who_is_ahead_and_how_sure_that_is(finished):
    html = page()
    assert answer(html) == (
        "rank-4 has the highest mean Dice of 87.50% (95% interval 81.33 to 93.67). rank-1 minus "
        "rank-4 is -25.00 points (-30.00 to -20.00), p 0.031: more than chance between cases "
        "explains. With 2 pairs of runs, how far other seeds would move that isn't known."
    )
    assert "do what is left" not in html


def test_the_head_says_where_arms_can_not_be_told_apart(finished):
    study(finished, "alike", seeds=[1, 2, 3])

    def dice(run, case, organ) -> float:
        return 0.5 + (run.arm == "rank-1" and case != "a") * (0.1 if case in "bcd" else -0.1)

    finish(plan.load("alike")[0], dice)
    text = answer(page("alike"))
    assert "p 0.828: over 6 cases the two can't be told apart." in text and "seeds" not in text
    finish(plan.load("alike")[0], dice, cases=("b", "c", "d"))
    assert answer(page("alike")) == (
        "rank-1 has the highest mean Dice of 60.00%; its cases are too few for an interval. rank-1 "
        "minus rank-4 is +10.00 points; 3 cases are too few to show any difference."
    )


def test_the_head_says_why_arms_are_not_compared(finished):
    alone = "The study names no reference, so no test tells its arms apart."
    finish(study(finished, "alone", reference=None)[0], score)
    assert alone in answer(page("alone"))
    arms_of_three = RANKS["arms"] | {"rank-8": {"train": {"lora_rank": 8}}}
    (found,) = study(finished, "three", arms=arms_of_three, reference="rank-8")
    finish(plan.Study(found.name, found.on, found.file, found.runs[:4]), score)
    text = answer(page("three"))
    assert text.endswith("apart before rank-8, their reference, has finished.")


def test_the_head_of_a_study_over_folds_says_what_its_cases_are_good_for(finished):
    (folded,) = study(finished, "folded", folds=3, seeds=[1])
    cases = tuple("abcdef")
    finish(folded, score, cases, lambda run: cases[run.fold :: 3])
    text = words(page("folded"))
    assert (
        "hand on a model trained like rank-4 on all cases; these say how far to believe it: "
        "hsam export --run MODEL --out FOLDER --format huggingface --calibrate "
        "results/folded/rank-4 the tables" in text
    )
    assert "--calibrate" not in words(page())


def test_the_head_says_how_to_do_what_is_left(finished):
    shutil.rmtree(RESULTS / "ranks" / "rank-1")
    html = page()
    head = words(html.partition("</h1>")[2].partition("<table")[0])
    assert "rank-4 has a mean Dice of 87.50%" in head and "minus" not in answer(html)
    assert (
        "do what is left, 2 of 4 runs: snakemake --cores all -- reports/ranks.html see how long "
        "that takes: hsam study ranks the tables in the terminal: hsam study ranks --table" in head
    )
