"""The command line, `hsam`: one thin function a command, which imports what it calls when called.

Nothing is computed, read or printed here that a stage or a command could do itself.
"""

import signal
import sys

from pipeline.cli.app import app
from pipeline.core import installed, writable
from pipeline.core.cpus import set_thread_defaults
from pipeline.core.errors import Stopped, UserError


def main() -> None:
    """Run the command; a user's mistake, and a file that the system refuses to read or write, is
    printed and ends with exit code 2.
    """
    set_thread_defaults()
    try:
        app()
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if (sentence := installed.absent(error)) is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {writable.system_problem(error)}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        name = signal.Signals(stopped.signal).name
        print(f"{stopped}, on {name}; the same command goes on from here", file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except SystemExit as end:
        if end.code == 128 + signal.SIGINT:  # what Typer makes of a KeyboardInterrupt
            print("interrupted; the same command goes on from here", file=sys.stderr)
        raise
