"""The one exception for mistakes that a user can mend."""

from collections.abc import Iterable


class UserError(Exception):
    """One or more problems with what the user gave; the command line prints them and exits with 2.

    Each problem is one sentence naming the file, case or field, what was expected, what was
    found and what to do. Problems that can be gathered are gathered before this is raised.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))
