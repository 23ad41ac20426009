"""Sheets as Markdown and LaTeX."""

from pipeline.scoring.sheet import Sheet, latex, markdown

SHEET = Sheet(
    name="arms",
    title="Title",
    header=("arm", "Dice, %", "p"),
    rows=(("a_b & c", "80.00 ± 1.00", "< 0.001"), ("x|y", "–", "–")),
    sections=frozenset({1}),
    notes=("One note.",),
)


def test_markdown():
    assert markdown(SHEET).splitlines() == [
        "### Title",
        "",
        "| arm | Dice, % | p |",
        "| --- | ---: | ---: |",
        "| a_b & c | 80.00 ± 1.00 | < 0.001 |",
        r"| x\|y | – | – |",
        "",
        "One note.",
    ]


def test_latex():
    assert latex(SHEET).splitlines() == [
        r"% Title; needs \usepackage{booktabs}",
        "% One note.",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"arm & Dice, \% & p \\",
        r"\midrule",
        r"a\_b \& c & 80.00 $\pm$ 1.00 & $<$ 0.001 \\",
        r"\midrule",
        r"x|y & -- & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_bold_cells_stay_bold_beside_empty_columns():
    sheet = Sheet(
        name="dice",
        title="Dice",
        header=("organ", "none", "a|b"),
        rows=(("liver", "–", "0.9 ± 0.1*"), ("aorta", "", "0.8")),
        bold=frozenset({(0, 2)}),
        notes=("* p < 0.05.",),
    ).without_empty()
    assert markdown(sheet).splitlines()[2:] == [
        r"| organ | a\|b |",
        "| --- | ---: |",
        r"| liver | **0.9 ± 0.1\*** |",
        "| aorta | 0.8 |",
        "",
        r"\* p < 0.05.",
    ]
    assert r"liver & \textbf{0.9 $\pm$ 0.1*} \\" in latex(sheet).splitlines()
