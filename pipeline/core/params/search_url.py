"""Where the search's trials are kept: `search.storage`, a URL whose secrets are in the environment.

Parameters are recorded, in provenance.json, dvc.lock and Snakemake's memory. A password in them
would be too, so none is taken: the URL names an environment variable in its place.
"""

import os
import re
from urllib.parse import quote

from pipeline.core.errors import UserError

KEY = "search.storage"
SCHEMES = ("postgresql", "mysql", "sqlite", "redis", "rediss")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_URL = re.compile(r"(?P<scheme>[a-z]+)(?:\+\w+)?://(?P<rest>.*)", re.DOTALL)


def problem(storage: str | None) -> str | None:
    """What is wrong with `search.storage`, without showing a password."""
    if storage is None or _VARIABLE.fullmatch(storage):
        return None
    found = _URL.fullmatch(storage)
    if found is None or found["scheme"] not in SCHEMES:
        return (
            f"{KEY}: expected null, the name of an environment variable ($HSAM_STORAGE), or a URL "
            f"that begins with {', '.join(f'{scheme}://' for scheme in SCHEMES)}; change it."
        )
    user, at, _ = found["rest"].rpartition("@")
    password = user.partition(":")[2] if at else ""
    if (password and not _VARIABLE.fullmatch(password)) or "password=" in storage:
        return (
            f"{KEY}: holds a password, which would be recorded with the results; put it into an "
            "environment variable and write postgresql://user:$NAME@host/database."
        )
    return None


def resolved(storage: str) -> str:
    """The URL with the values of the environment variables that it names.

    Raises:
        UserError: a variable is not set.
    """
    whole = _VARIABLE.fullmatch(storage) is not None

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise UserError(
                f"{KEY}: names the environment variable {name}, which is not set; export it."
            )
        return os.environ[name] if whole else quote(os.environ[name], safe="")

    return _VARIABLE.sub(value, storage)


def without_secrets(text: str, storage: str) -> str:
    """A library's message without the values of the variables that the URL names."""
    for match in _VARIABLE.finditer(storage):
        secret = os.environ.get(match[1] or match[2], "")
        for shown in {secret, quote(secret, safe="")} - {""}:
            text = text.replace(shown, f"${match[1] or match[2]}")
        if _VARIABLE.fullmatch(storage):
            inner = _URL.fullmatch(secret)
            user, at, _ = inner["rest"].rpartition("@") if inner else ("", "", "")
            if at and (password := user.partition(":")[2]):
                text = text.replace(password, "***")
    return text


def scheme(storage: str) -> str:
    """The first part of the URL: postgresql, redis, ..."""
    found = _URL.fullmatch(resolved(storage))
    return found["scheme"] if found else "postgresql"
