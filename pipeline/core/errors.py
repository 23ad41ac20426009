"""What ends a command without a traceback: a user's mistake, a signal; and words for messages."""

from collections.abc import Iterable, Mapping


class UserError(Exception):
    """One or more problems with what the user gave; the command line prints them and exits with 2.

    Each problem is one sentence naming the file, case or field, what was expected, what was
    found and what to do. Problems that can be gathered are gathered before this is raised.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class Stopped(Exception):
    """A signal asked the work to stop, and it did, with its state kept.

    Attributes:
        signal: the signal's number; the command ends with 128 more than it.
        alone: whether the other processes of the work don't know of it.
    """

    def __init__(self, where: str, signal: int, *, alone: bool = False) -> None:
        self.signal, self.alone = signal, alone
        super().__init__(where)


def few(names: Iterable[str], most: int = 5) -> str:
    """The first names as a list for a message, and how many there are where some are left out."""
    names = list(names)
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def together(warnings: Mapping[str, Iterable[str]]) -> list[str]:
    """Warnings of cases as "CASES: SENTENCE", a sentence that several cases share once.

    Args:
        warnings: case id to sentences.
    """
    cases: dict[str, list[str]] = {}
    for case, sentences in warnings.items():
        for sentence in dict.fromkeys(sentences):
            cases.setdefault(sentence, []).append(case)
    return [f"{few(names)}: {sentence}" for sentence, names in cases.items()]
