"""One function over many cases, in processes, with progress and every problem gathered."""

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from pipeline.core import children
from pipeline.core.console import LINE_SECONDS, steps
from pipeline.core.errors import UserError


def over_cases(
    function: Callable[[Any], Any], cases: Mapping[str, Any], jobs: int, title: str
) -> tuple[dict[str, Any], list[str]]:
    """Call `function` with every value of `cases`.

    Args:
        function: importable by name; it may raise UserError.
        cases: case id to argument; both function and arguments are pickled when `jobs` > 1.
        jobs: processes; 1 works in this one.
        title: shown with the progress.

    Returns:
        Case id to result in the order of `cases`, those with problems left out, and the problems.

    Raises:
        UserError: a process was killed from outside.
    """
    done: dict[str, tuple[Any, list[str]]] = {}
    jobs = min(jobs, len(cases))
    with steps(title, len(cases), pause=LINE_SECONDS) as progress:
        if jobs <= 1:
            for case, argument in cases.items():
                done[case] = _guarded(function, argument)
                progress.advance(case)
        else:
            # spawned, since forking a process that has threads can hang
            context = multiprocessing.get_context("spawn")
            children.bind()
            pool = ProcessPoolExecutor(jobs, mp_context=context)
            try:
                futures = {
                    pool.submit(_guarded, function, argument): case
                    for case, argument in cases.items()
                }
                for future in as_completed(futures):
                    done[futures[future]] = future.result()
                    progress.advance(futures[future])
            except BrokenProcessPool:
                raise UserError(
                    f"{title}: a worker process was killed, most likely for want of memory; "
                    "run again with fewer --jobs."
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)
    results = {case: done[case][0] for case in cases if not done[case][1]}
    return results, [problem for case in cases for problem in done[case][1]]


def _guarded(function: Callable[[Any], Any], argument: Any) -> tuple[Any, list[str]]:
    try:
        return function(argument), []
    except UserError as error:
        return None, error.problems
