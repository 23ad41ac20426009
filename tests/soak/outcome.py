"""One row of the reliability sheet."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What was tried, and what came of it.

    Attributes:
        what: one line of words.
        tried: how many times.
        failures: one sentence for each time that did not hold, with what is needed to try it again.
        detail: further figures, such as how many damaged files were refused.
    """

    what: str
    tried: int
    failures: tuple[str, ...] = ()
    detail: str = ""

    @property
    def held(self) -> int:
        """How many times it held."""
        return self.tried - len(self.failures)
