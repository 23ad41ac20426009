from pathlib import Path

import pytest
import torch

from pipeline.core.errors import UserError
from pipeline.training.checkpoints import PART, Checkpoints


def state(number: int) -> dict:
    return {"number": number, "tensor": torch.full((100,), float(number))}


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    found = Checkpoints(tmp_path / "run")
    for step in (5, 80, 123):
        found.save(step, state(step))
    return found


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_newest_is_loaded_and_the_one_before_it_kept(checkpoints):
    loaded = checkpoints.load()
    assert loaded["number"] == 123
    assert torch.equal(loaded["tensor"], state(123)["tensor"])
    assert [name[:19] for name in names(checkpoints)] == [
        "checkpoint-00000080",
        "checkpoint-00000123",
    ]


def test_without_one_there_is_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new")
    checkpoints.mend()
    assert checkpoints.load() is None


@pytest.mark.parametrize("damage", ["short", "bit", "empty"])
def test_a_damaged_one_is_named_and_the_one_before_it_used(checkpoints, capsys, damage):
    newest = checkpoints.folder / names(checkpoints)[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes({"short": data[:-10], "bit": data, "empty": b""}[damage])
    checkpoints.mend()
    assert f"{newest} is damaged" in capsys.readouterr().err
    assert checkpoints.load()["number"] == 80


def test_the_one_before_is_there_while_the_new_one_is_written(checkpoints, monkeypatch):
    def killed(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    before = names(checkpoints)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(200, state(200))
    assert names(checkpoints) == before
    # what a process that is killed while it writes leaves behind
    (checkpoints.folder / PART).write_bytes(b"half")
    checkpoints.mend()
    assert names(checkpoints) == before
    assert checkpoints.load()["number"] == 123


def test_a_checkpoint_that_carries_code_is_never_run(checkpoints):
    class Bad:
        def __reduce__(self):
            return print, ("ran",)

    checkpoints.save(300, {"bad": Bad()})
    checkpoints.mend()
    with pytest.raises(Exception, match="[Ww]eights"):
        checkpoints.load()


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs Linux's full disk")
def test_a_full_disk_is_one_sentence_and_the_last_good_ones_stay(checkpoints):
    before = names(checkpoints)
    (checkpoints.folder / PART).symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"can't be written \(no space left on device\); make room"):
        checkpoints.save(200, state(200))
    assert names(checkpoints) == before
    assert checkpoints.load()["number"] == 123
