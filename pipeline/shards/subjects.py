"""Which cases are of one subject."""

import re
from collections.abc import Sequence

from pipeline.core.errors import UserError, few


def owners(group: str | None, cases: Sequence[str]) -> dict[str, str]:
    """Case to its subject: the case itself, or the first group of a pattern in its id.

    Raises:
        UserError: cases in whose ids the pattern finds nothing.
    """
    if group is None:
        return {case: case for case in cases}
    found = {case: re.search(group, case) for case in cases}
    unknown = [case for case, match in found.items() if match is None or not match[1]]
    if unknown:
        raise UserError(
            f"split.group: {group} finds no subject in {few(unknown)}; mend the pattern, or set it "
            "to null."
        )
    return {case: match[1] for case, match in found.items() if match is not None}
