import subprocess
import sys
from pathlib import Path

from pipeline.scoring.scores import SCORES

DOCS = Path(__file__).resolve().parents[3] / "docs" / "evaluation.md"


def test_the_documentation_lists_the_table():
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    start = lines.index("| measure | column | definition | unit |") + 2
    expected = [
        f"| {score.title} | `{score.name}` | {score.definition} | {score.unit or '–'} |"
        for score in SCORES.values()
    ]
    assert lines[start : start + len(expected) + 1] == [*expected, ""]


def test_a_distance_is_in_voxels_or_mm():
    """Conventions count the volume's diagonal in the distance's unit."""
    units = {score.unit for score in SCORES.values() if score.kind == "distance"}
    assert units == {"voxels", "mm"}


def test_the_table_is_read_without_heavy_libraries():
    code = """
import sys
import pipeline.scoring.scores
heavy = {"numpy", "scipy", "pandas", "pyarrow", "torch"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
