from xml.etree import ElementTree

import pandas as pd
import pytest

from pipeline.reporting import trial_plots

NAN = float("nan")
TRIED = {
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "lora_rank": [1, 4, 16],
    "clip_norm": [None, 1.0],
    "mask_attention": [True, False],
}
TRIALS = pd.DataFrame(
    {
        "number": [0, 1, 2, 3],
        "state": ["complete", "failed", "pruned", "complete"],
        "value": [0.6, NAN, 0.2, 0.7],
        "learning_rate": [0.2, 0.01, 0.001, 0.05],
        "lora_rank": [4.0, 1.0, 16.0, 1.0],
        "clip_norm": [NAN, 1.0, 1.0, NAN],
        "mask_attention": [True, False, False, True],
    }
)
IMPORTANCES = {"lora_rank": 0.7, "learning_rate": 0.3}


def drawn(trials=TRIALS, tried=TRIED, importances=IMPORTANCES) -> dict[str, str]:
    return dict(trial_plots.plots(trials, tried, importances))


def test_all_plots_are_there_and_of_one_size():
    plots = drawn()
    slices = ["lora_rank", "learning_rate", "clip_norm", "mask_attention"]  # by importance
    assert list(plots) == [
        *("History", "Importance", "Parallel coordinates"),
        *(f"Slice: {key}" for key in slices),
    ]
    assert len({ElementTree.fromstring(svg).get("viewBox") for svg in plots.values()}) == 1
    assert plots == drawn()
    assert not [title for title, svg in plots.items() if "mathdefault" in svg]


@pytest.mark.parametrize(
    ("plot", "words"),
    [
        ("History", ["best so far", "pruned", "Dice", "trial"]),
        ("Importance", ["lora_rank", "learning_rate"]),
        ("Parallel coordinates", ["best", "null", "true", "16", "0.0001", "0.2", "Dice"]),
        ("Slice: clip_norm", ["null", "1", "pruned"]),
        ("Slice: learning_rate", ["0.001", "0.01", "0.1"]),
    ],
)
def test_a_plot_names_what_it_shows(plot, words):
    texts = [text.strip() for text in ElementTree.fromstring(drawn()[plot]).itertext()]
    assert set(words) <= set(texts)


def test_one_key_has_no_parallel_coordinates_and_few_trials_no_importance():
    plots = drawn(tried={"lora_rank": [1, 4, 16]}, importances={})
    assert list(plots) == ["History", "Slice: lora_rank"]


def test_failed_trials_alone_have_a_history():
    assert list(drawn(TRIALS.iloc[1:2], importances={})) == ["History"]
