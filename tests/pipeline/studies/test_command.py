"""`hsam study NAME --table`, and the example in the documentation."""

import re
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.studies import plan
from pipeline.studies.files import StudyFile
from tests.pipeline.studies.outputs import finish
from tests.pipeline.test_cli import hsam, refused

DOCS = Path(__file__).resolve().parents[3] / "docs" / "studies.md"


def test_tables_are_printed_as_far_as_they_go(workflow):
    (study,) = plan.load("ranks")
    finish(plan.Study(study.name, study.on, study.file, study.runs[2:]), lambda run, *_: 0.8)
    done = hsam("study", "ranks", "--table", cwd=workflow.parent)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [re.sub(r"[│┃\s]+", " ", line).strip() for line in done.stdout.splitlines()]
    assert "rank-4 80.00 0.00 80.00 to 80.00 2.00 4.00 80.00 2/2" in rows
    assert "rank-1/draw-7-seed-1 not trained yet – – – –" in rows
    assert "rank-1: 2 of 2 runs are to do (not trained yet)." in rows
    assert "Intervals are over cases, seeds (docs/studies.md)." in rows


def test_a_study_has_to_be_named(workflow):
    assert "ranks" in refused(hsam("study", "--table", cwd=workflow.parent))


def test_damaged_scores_are_one_sentence(workflow):
    (study,) = plan.load("ranks")
    finish(study, lambda run, *_: 0.8)
    path = study.runs[0].places(Path("results"))["evaluate"] / "cases.parquet"
    path.write_bytes(b"x")
    message = refused(hsam("study", "ranks", "--table", cwd=workflow.parent))
    assert f"{path}: damaged" in message


def test_the_documented_file_is_a_study():
    (block,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    content = YAML(typ="safe").load(block)
    assert set(content) == set(StudyFile.model_fields)
    assert StudyFile.model_validate(content).reference in content["arms"]
