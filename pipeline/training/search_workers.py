"""Several processes on the trials of one search."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

import torch

from pipeline.core import children
from pipeline.core.console import say
from pipeline.core.errors import Stopped, UserError
from pipeline.core.signals import listening

LOOK_SECONDS = 0.2  # between two looks at whether a signal has come


def work(count: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Call `function(*arguments, number)` in so many processes, with numbers from 1, and wait.

    A process that is killed doesn't stop the others.

    Args:
        count: processes; they end with this one, and share the CPU's threads.
        function: at the top level of a module.
        arguments: must be picklable.

    Raises:
        UserError: raised by the function in any of the processes, once all have ended.
        Stopped: a signal asked for it, and all have ended.
    """
    children.bind()
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // count)
    ends = {}
    with listening() as stop:
        for number in range(1, count + 1):
            here, there = context.Pipe(duplex=False)
            given = (there, threads, function, (*arguments, number))
            process = context.Process(target=_in_process, args=given)
            process.start()
            there.close()
            ends[process] = here
        told = False
        while alive := [process.sentinel for process in ends if process.exitcode is None]:
            connection.wait(alive, LOOK_SECONDS)
            if stop.signal is not None and not told:
                told = True
                for process in ends:
                    process.terminate()
    if stop.signal is not None:
        raise Stopped("search: stopped, its trials in hand are put back", stop.signal)
    problems: list[str] = []
    for number, (process, here) in enumerate(ends.items(), 1):
        code = process.exitcode or 0
        problems += [text for text in _received(here) if text not in problems]
        if code < 0:
            say(f"search: worker {number} was killed ({signal.Signals(-code).name})")
        elif code > 0:
            raise RuntimeError(f"worker {number} ended with exit code {code}")
    if problems:
        raise UserError(problems)


def _received(here: connection.Connection) -> list[str]:
    """What a process has sent; nothing where it ended without."""
    try:
        found: list[str] = here.recv()
        return found
    except EOFError:
        return []


def _in_process(
    there: connection.Connection,
    threads: int,
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(threads)
    try:
        function(*arguments)
    except UserError as error:
        there.send(error.problems)
    except Stopped:
        pass  # the process that started this one was told too
