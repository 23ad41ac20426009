"""The study that the workers of a search share: who tries what, what came of it, what is left.

Every trial has a number, from 0 to one less than `search.trials`. Who takes one does so under a
lock of the run folder, so none is tried twice and none is left out. The record is Optuna's own; a
trial's number, worker and cost are attributes of it. In a space of choices and whole numbers no
values are tried twice, and the trials end where all have been tried.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from pipeline.core.params import search_space
from pipeline.core.params.blocks import Search
from pipeline.training import search_storage
from pipeline.training.trials import Outcome, Pruned, Trial

LOCK = "study.lock"
SEEDS = 2**32
ATTEMPTS = 2  # at a trial whose process is killed
KILLED = "its process was killed"
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Asked:
    """A trial that is this worker's to run.

    Attributes:
        number: from 0.
        values: dotted key of `train` to the value to try.
        trial: Optuna's.
    """

    number: int
    values: dict[str, Any]
    trial: optuna.Trial

    def report(self, epoch: int, dice: float) -> None:
        """Tell of a validation after so many epochs.

        Raises:
            Pruned: others were better at this point.
        """
        self.trial.report(dice, epoch)
        if self.trial.should_prune():
            raise Pruned(epoch, dice)


class Study:
    """A worker's view of the study.

    Args:
        folder: run folder of the search; its name is the study's.
        search: the `search` block.
        epochs: of each trial.
        seed: of the search.
        train: the `train` block, whose values the first trial tries where they lie in the space.
    """

    def __init__(
        self, folder: Path, search: Search, epochs: int, seed: int, train: Mapping[str, Any]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._folder, self._search, self._seed = folder, search, seed
        self._spaces = distributions(search.space)
        self._first = {key: search_space.value_at(train, key) for key in self._spaces}
        self._size = math.prod(_count(distribution) for distribution in self._spaces.values())
        with self._locked():
            self._storage = search_storage.opened(search.storage, folder)
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=folder.name,
                direction="maximize",
                pruner=_pruner(search, epochs),
                load_if_exists=True,
            )

    @property
    def total(self) -> int:
        """How many trials there are to be: fewer than asked for in a space with fewer values."""
        return int(min(self._search.trials, self._size))

    @property
    def dashboard(self) -> str:
        """The command that shows the study in a browser."""
        return f'optuna-dashboard "{search_storage.shown(self._search.storage, self._folder)}"'

    def is_left(self) -> bool:
        """Whether there is a trial to take."""
        with self._locked():
            trials = self._trials()
            waiting = any(trial.state == TrialState.WAITING for trial in trials)
            return waiting or self._next(trials) is not None

    def claim(self, worker: int) -> Asked | None:
        """Take the next trial; None: all are taken, or the hours are over.

        What a trial tries follows from the seed, its number and the trials that had ended before.
        """
        while True:
            with self._locked():
                trials = self._trials()
                if not any(trial.state == TrialState.WAITING for trial in trials):
                    # else one is left from a worker that was killed between these lines
                    number = self._next(trials)
                    if number is None:
                        return None
                    self._enqueue(number, [t for t in trials if _number(t) == number])
                asked = self._ask(worker)
                if asked is not None:
                    return asked

    def _enqueue(self, number: int, before: Sequence[FrozenTrial]) -> None:
        """Put a trial into the study, given the earlier attempts at it."""
        values = before[-1].params if before else self._start(number)
        if values and self._is_known(number, values):
            values = self._unknown(number)
        self._study.enqueue_trial(
            values,
            user_attrs={"number": number, "attempt": sum(map(_was_killed, before)) + 1},
        )

    def _ask(self, worker: int) -> Asked | None:
        """The trial that waits; None: another one has its number or its values."""
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        number = next((_number(trial) for trial in waiting), None)
        if number is not None:
            seed = (self._seed + number) % SEEDS
            self._study.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = self._study.ask(self._spaces)
        trial.set_user_attr("worker", worker)
        asked = Asked(trial.user_attrs.get("number", -1), dict(trial.params), trial)
        # on hosts that don't see each other's locks two may have taken one number
        others = [t for t in self._trials() if _number(t) == asked.number and _is_taken(t)]
        late = any(other.number < trial.number for other in others)
        if asked.number < 0 or late or self._is_known(asked.number, asked.values):
            self.put_back(asked)
            return None
        return asked

    def finish(self, asked: Asked, outcome: Outcome, seconds: float, device: str) -> None:
        """Record how a trial ended."""
        with search_storage.explained(self._search.storage):
            for name, value in (
                ("seconds", round(seconds, 3)),
                ("device", device),
                ("reason", outcome.reason),
            ):
                asked.trial.set_user_attr(name, value)
            if outcome.value is None:
                self._study.tell(asked.trial, state=TrialState.FAIL)
            elif outcome.pruned:
                self._study.tell(asked.trial, state=TrialState.PRUNED)
            else:
                self._study.tell(asked.trial, outcome.value)

    def put_back(self, asked: Asked) -> None:
        """Give a trial back whose worker was asked to stop: it is tried again, as if for the first
        time.
        """
        with search_storage.explained(self._search.storage):
            asked.trial.set_user_attr("put_back", True)
            self._study.tell(asked.trial, state=TrialState.FAIL)

    def bury(self, worker: int | None = None) -> int:
        """Mark the trials of dead workers as failed; they are tried again once.

        Args:
            worker: whose; None: all, to be called where no worker lives.

        Returns:
            How many there were.
        """
        with self._locked():
            running = [trial for trial in self._trials() if trial.state == TrialState.RUNNING]
            theirs = [
                trial for trial in running if worker in (None, trial.user_attrs.get("worker"))
            ]
            for trial in theirs:
                self._storage.set_trial_user_attr(trial._trial_id, "reason", KILLED)
                self._study.tell(trial.number, state=TrialState.FAIL)
            return len(theirs)

    def trials(self) -> list[Trial]:
        """Those that ended, by number and attempt; what was put back is left out."""
        with search_storage.explained(self._search.storage):
            found = [self._record(trial) for trial in self._trials() if _counts(trial)]
        wanted = [trial for trial in found if trial.number < self.total]
        return sorted(wanted, key=lambda trial: (trial.number, trial.attempt))

    def left(self) -> tuple[int, float]:
        """How many trials are to end yet, and the seconds that these will take.

        By the mean of those that ended, shared by the workers that are at a trial now and the
        caller; no more than `search.hours` leaves.
        """
        trials = self._trials()
        over = {
            _number(trial) for trial in trials if trial.state.is_finished() and _is_taken(trial)
        }
        at_work = sum(trial.state == TrialState.RUNNING for trial in trials) + 1
        number = self.total - len(over & set(range(self.total)))
        measured = [trial.seconds for trial in self.trials() if trial.seconds is not None]
        spent = sum(measured)
        seconds = spent / max(1, len(measured)) * number / min(at_work, max(1, number))
        if self._search.hours is not None:
            workers = self._search.workers
            seconds = min(seconds, max(0.0, self._search.hours * 3600 - spent / workers))
        return number, seconds

    def importances(self) -> dict[str, float]:
        """How much of the spread in Dice each key explains, largest first; the sum is 1.

        Empty below four complete trials, or where all have the same Dice.
        """
        complete = [trial for trial in self._trials() if trial.state == TrialState.COMPLETE]
        if len(complete) < 4 or len({trial.value for trial in complete}) == 1:
            return {}
        found = optuna.importance.get_param_importances(self._study)
        return {key: value for key, value in found.items() if math.isfinite(value)}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Inside the block, no other worker takes a trial or gives one back."""
        with (
            search_storage.explained(self._search.storage),
            search_storage.waited(self._folder / LOCK),
        ):
            yield

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _next(self, trials: Sequence[FrozenTrial]) -> int | None:
        """The lowest number that nobody runs or has finished; None: none, or no hours are left."""
        if self._search.hours is not None:
            spent = sum(_seconds(trial) for trial in trials)
            if spent >= self._search.hours * 3600 * self._search.workers:
                return None
        taken = {_number(trial) for trial in trials if _is_taken(trial)}
        return next((number for number in range(self.total) if number not in taken), None)

    def _start(self, number: int) -> dict[str, Any]:
        """What a trial has to try: of the first one the parameters as they stand."""
        inside = all(
            _holds(distribution, self._first[key]) for key, distribution in self._spaces.items()
        )
        return dict(self._first) if number == 0 and inside else {}

    def _is_known(self, number: int, values: Mapping[str, Any]) -> bool:
        """Whether another trial has these values, in a space where that is more than chance."""
        if math.isinf(self._size):
            return False
        others = (trial for trial in self._trials() if _is_taken(trial))
        return any(_number(trial) != number and trial.params == values for trial in others)

    def _unknown(self, number: int) -> dict[str, Any]:
        """Values that no other trial has; there are some, since there are no more trials."""
        chance = random.Random(f"{self._seed} {number}")
        while True:
            values = {key: _drawn(space, chance) for key, space in self._spaces.items()}
            if not self._is_known(number, values):
                return values

    def _record(self, trial: FrozenTrial) -> Trial:
        about = trial.user_attrs
        reason = about.get("reason", "")
        if _was_killed(trial):
            again = about["attempt"] < ATTEMPTS
            reason = f"{KILLED}; tried again" if again else f"{KILLED}, {ATTEMPTS} times"
        value = trial.value
        if trial.state == TrialState.FAIL:
            value = None
        return Trial(
            number=about["number"],
            state=STATES[trial.state],
            value=value,
            values=dict(trial.params),
            epochs=max(trial.intermediate_values, default=None),
            seconds=about.get("seconds"),
            device=about.get("device"),
            worker=about.get("worker"),
            attempt=about["attempt"],
            study_number=trial.number,
            reason=reason,
        )


def distributions(given: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Dotted key to Optuna's distribution, of `search.space`."""
    found: dict[str, BaseDistribution] = {}
    for key, knob in search_space.knobs(given).items():
        if isinstance(knob, list):
            found[key] = CategoricalDistribution(knob)
        elif knob.whole:
            found[key] = IntDistribution(int(knob.low), int(knob.high), log=knob.log)
        else:
            found[key] = FloatDistribution(knob.low, knob.high, log=knob.log)
    return found


def _count(distribution: BaseDistribution) -> float:
    """How many values there are."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return distribution.high - distribution.low + 1
    return math.inf


def _drawn(distribution: BaseDistribution, chance: random.Random) -> Any:
    """One of countable values."""
    if isinstance(distribution, CategoricalDistribution):
        return chance.choice(distribution.choices)
    assert isinstance(distribution, IntDistribution)
    return chance.randint(distribution.low, distribution.high)


def _pruner(search: Search, epochs: int) -> optuna.pruners.BasePruner:
    if search.pruner == "median":
        return optuna.pruners.MedianPruner()
    if search.pruner == "hyperband":
        least = min(search.validate_every, epochs)
        return optuna.pruners.HyperbandPruner(min_resource=least, max_resource=epochs)
    return optuna.pruners.NopPruner()


def _number(trial: FrozenTrial) -> int | None:
    """None: somebody else has put the trial into the study."""
    return trial.user_attrs.get("number")


def _was_killed(trial: FrozenTrial) -> bool:
    return trial.user_attrs.get("reason") == KILLED


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial came to an end of its own, or by a kill."""
    known = _number(trial) is not None and trial.state in STATES
    return known and not trial.user_attrs.get("put_back", False)


def _is_taken(trial: FrozenTrial) -> bool:
    """Whether a trial's number isn't to be tried again."""
    if not trial.state.is_finished():
        return True
    again = _was_killed(trial) and trial.user_attrs["attempt"] < ATTEMPTS
    return _counts(trial) and not again


def _seconds(trial: FrozenTrial) -> float:
    if trial.state == TrialState.RUNNING and trial.datetime_start is not None:
        return (datetime.now() - trial.datetime_start).total_seconds()
    return float(trial.user_attrs.get("seconds", 0.0))


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value can be tried."""
    if isinstance(distribution, CategoricalDistribution):
        return any(
            value == choice and type(value) is type(choice) for choice in distribution.choices
        )
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and distribution._contains(value)
