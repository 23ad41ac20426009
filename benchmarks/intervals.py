"""How often the 95% interval of a study's arm covers the truth, on made studies.

    python benchmarks/intervals.py [--rounds 200] [--json intervals.json]

Scores are normal: a part of the case, which all runs share, a part of the draw, a part of the run,
and a rest; the standard deviations are percentage points of Dice. `cases` has them as they are
between abdominal cases; in `runs` the runs differ more than the cases, as in paired differences
between arms, in which the cases' part cancels. A round is a study.
"""

import time

import numpy as np
from measure import machine, options, report

from pipeline.studies.intervals import Scores, estimate

CASES = 12
# name: draws, seeds, and standard deviations of case, draw, run, rest
STUDIES = {
    "cases, 1 draw x 3 seeds": (1, 3, 6, 0, 1.5, 2),
    "cases, 1 draw x 5 seeds": (1, 5, 6, 0, 1.5, 2),
    "cases, 3 draws x 5 seeds": (3, 5, 6, 1, 1.5, 2),
    "runs, 1 draw x 2 seeds": (1, 2, 1, 0, 3, 1),
    "runs, 1 draw x 3 seeds": (1, 3, 1, 0, 3, 1),
    "runs, 1 draw x 5 seeds": (1, 5, 1, 0, 3, 1),
    "runs, 3 draws x 5 seeds": (3, 5, 1, 1, 3, 1),
}


def study(random: np.random.Generator, draws: int, seeds: int, *spread: float) -> Scores:
    """Scores of a made arm whose true mean is 0."""
    of_case, of_draw, of_run, rest = spread
    by_case = random.normal(0, of_case, CASES)
    values = [
        by_case + shift + random.normal(0, of_run) + random.normal(0, rest, CASES)
        for shift in random.normal(0, of_draw, draws)
        for _ in range(seeds)
    ]
    runs = tuple((draw, seed) for draw in range(draws) for seed in range(seeds))
    names = tuple(f"{case:02}" for case in range(CASES))
    return Scores(runs, names, np.array(values)[:, :, None, None])


def main() -> None:
    arguments = options(__doc__, rounds=200, threads=1)
    rows = []
    for name, values in STUDIES.items():
        random, covered, widths = np.random.default_rng(0), 0, []
        start = time.perf_counter()
        for _ in range(arguments.rounds):
            found = estimate(study(random, *values))
            low, high = found.low[0, 0], found.high[0, 0]
            covered += int(low <= 0 <= high)
            widths.append(high - low)
        taken = (time.perf_counter() - start) / arguments.rounds
        rows.append(
            {
                "spread, study": name,
                "covered": covered / arguments.rounds,
                "mean width, points": float(np.mean(widths)),
                "seconds an interval": taken,
            }
        )
    title = f"{arguments.rounds} studies each, {CASES} test cases"
    report({"machine": machine(arguments.threads, "numpy"), title: rows}, arguments.json)


if __name__ == "__main__":
    main()
