"""Processes that share the trials of a search."""

import os
import signal
import threading
import time

import pytest

from pipeline.core.errors import Stopped, UserError
from pipeline.training import search_workers


def note(folder, number):
    (folder / str(number)).touch()


def fail(folder, number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 2:
        raise UserError("train.lora_rank: no.")
    note(folder, number)


def last(folder, number):
    note(folder, number)
    time.sleep(60)


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_each_process_has_a_number(tmp_path):
    search_workers.work(2, note, (tmp_path,))
    assert names(tmp_path) == {"1", "2"}


def test_one_that_is_killed_and_one_that_refuses_stop_no_other(tmp_path, capsys):
    with pytest.raises(UserError, match="train.lora_rank: no."):
        search_workers.work(3, fail, (tmp_path,))
    assert names(tmp_path) == {"3"}
    assert "search: worker 1 was killed (SIGKILL)" in capsys.readouterr().err


def test_a_signal_ends_all_of_them(tmp_path):
    def stop():
        while names(tmp_path) != {"1", "2"}:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(Stopped, match="put back") as caught:
        search_workers.work(2, last, (tmp_path,))
    assert caught.value.signal == signal.SIGTERM
