import pytest

from pipeline.core import files, run_folder
from pipeline.core.errors import UserError
from pipeline.core.run_folder import open_run


def opened(tmp_path, **params):
    return open_run(tmp_path / "runs", "phantom", "split", params, {"manifest": "abc"})


def finished(tmp_path, **params):
    with opened(tmp_path, **params) as run:
        (run.out / "a.txt").write_text("a")
        run.finish()
        return run


def test_the_same_inputs_find_the_finished_run_and_others_do_not(tmp_path):
    path = finished(tmp_path, seed=1).path
    with opened(tmp_path, seed=1) as run:
        assert run.path == path
        assert run.is_done()
    with opened(tmp_path, seed=2) as run:
        assert run.path != path
        assert not run.is_done()


def test_a_damaged_output_is_not_taken_for_done(tmp_path):
    run = finished(tmp_path)
    (run.out / "a.txt").write_text("b")
    assert not run.is_done()


def test_a_run_can_wait_for_another_process(tmp_path, monkeypatch):
    first, said = opened(tmp_path), []
    first.__enter__()

    def ended_then(text: str) -> None:
        said.append(text)
        first.__exit__(None, None, None)

    monkeypatch.setattr(run_folder, "say", ended_then)
    monkeypatch.setattr(run_folder, "WAIT_SECONDS", 0.01)
    with open_run(tmp_path / "runs", "phantom", "split", {}, {"manifest": "abc"}, wait=True):
        assert "waiting for another process" in said[0]


def test_published_outputs_replace_what_was_there(tmp_path):
    out = tmp_path / "results" / "split"
    out.mkdir(parents=True)
    (out / "stale.txt").write_text("stale")
    finished(tmp_path).publish(out)
    assert sorted(path.name for path in out.iterdir()) == ["a.txt", "provenance.json"]
    assert [path.name for path in out.parent.iterdir()] == ["split"]


def test_a_change_of_a_published_file_does_not_reach_the_run(tmp_path):
    run = finished(tmp_path)
    run.publish(tmp_path / "out")
    (tmp_path / "out" / "a.txt").write_text("changed")
    assert run.is_done()


def test_provenance_lies_beside_the_outputs(tmp_path):
    run = finished(tmp_path, seed=1)
    provenance = files.read_json(run.out / "provenance.json")
    assert provenance["params"] == {"seed": 1}
    assert provenance["inputs"] == {"manifest": "abc"}
    assert "torch" in provenance["versions"]


def test_two_processes_cannot_work_in_one_folder(tmp_path):
    with opened(tmp_path), pytest.raises(UserError, match="another process"), opened(tmp_path):
        pass


def test_a_folder_of_another_run_is_left_alone(tmp_path):
    first, second = (finished(tmp_path, train={"epochs": n, "seed": 1}).path for n in (2, 3))
    (second / "out" / "a.txt").unlink()
    first.rename(tmp_path / "aside")
    second.rename(first)
    before = sorted(path.name for path in first.rglob("*"))
    with pytest.raises(UserError, match=r"another run, with other train\.epochs; move"):
        finished(tmp_path, train={"epochs": 2, "seed": 1})
    assert sorted(path.name for path in first.rglob("*")) == before
