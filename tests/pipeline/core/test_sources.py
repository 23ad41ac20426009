from pathlib import Path

import pytest

from pipeline.core import sources


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A small copy of the layout: stage -> helper -> model, and a module nobody uses."""
    files = {
        "pipeline/__init__.py": "",
        "pipeline/stages/__init__.py": "",
        "pipeline/stages/stage.py": "from pipeline import helper\n",
        "pipeline/helper.py": "def f():\n    import hsam\n    return hsam.model\n",
        "pipeline/other.py": "X = 1\n",
        "hsam/__init__.py": "from hsam.model import Model\n",
        "hsam/model.py": "class Model: pass\n",
        "pipeline/reporting/templates/stage.html.j2": "<p>",
        "pipeline/reporting/templates/other.css": "p {}",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    sources._imports.cache_clear()
    yield tmp_path
    sources._imports.cache_clear()


def test_files_are_those_the_stage_imports(tree):
    assert sources.stage_files("stage") == [
        Path("hsam/__init__.py"),
        Path("hsam/model.py"),
        Path("pipeline/helper.py"),
        Path("pipeline/reporting/templates/stage.html.j2"),
        Path("pipeline/stages/stage.py"),
    ]


def test_digest_follows_the_code_and_not_its_layout(tree):
    before = sources.stage_digest("stage")
    (tree / "pipeline/other.py").write_text("X = 2\n")
    (tree / "hsam/model.py").write_text("# a comment\nclass Model:\n    pass\n")
    assert sources.stage_digest("stage") == before
    (tree / "hsam/model.py").write_text("class Model:\n    x = 1\n")
    changed = sources.stage_digest("stage")
    assert changed != before
    (tree / "pipeline/reporting/templates/stage.html.j2").write_text("<b>")
    assert sources.stage_digest("stage") != changed
