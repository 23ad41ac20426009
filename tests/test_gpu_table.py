"""The table of the tests that need a GPU holds all of them."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent


def is_marked(function: ast.FunctionDef) -> bool:
    return "pytest.mark.gpu" in map(ast.unparse, function.decorator_list)


def test_every_test_that_needs_a_gpu_is_in_the_table():
    marked = {
        f"{path.relative_to(TESTS / 'pipeline')}::{node.name}"
        for path in TESTS.glob("pipeline/**/test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and is_marked(node)
    }
    text = (TESTS.parent / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert marked and marked == set(re.findall(r"^\| `(\S+::\w+)` ", text, re.MULTILINE))
