"""Sheets as Markdown and LaTeX."""

from pipeline.studies.sheets import Sheet
from pipeline.studies.writers import latex, markdown

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
