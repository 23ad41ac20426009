"""The application with all its commands; each module of them is a group of `hsam --help`."""

from pipeline.cli import house, scans, scores, stages, start  # noqa: F401, they declare commands
from pipeline.cli.command import app

__all__ = ["app"]
