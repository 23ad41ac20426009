import pytest

from pipeline.core import files


def test_atomic_path_leaves_the_old_file_when_the_writer_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_replace_folder_swaps_whole_folders(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(name)
    files.replace_folder(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_digest_ignores_key_order():
    assert files.digest({"a": 1, "b": [2]}) == files.digest({"b": [2], "a": 1})
    assert files.digest({"a": 1}) != files.digest({"a": 2})


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text('{"labels": {"liver": 1, "spleen": 2, "liver": 3}}')
    with pytest.raises(ValueError, match="key 'liver' is there twice"):
        files.read_json(path)
