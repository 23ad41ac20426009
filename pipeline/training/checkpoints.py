"""Checkpoints of a training: files `checkpoint-<step>-<SHA-256>.pt`.

The name holds the hash of the content, so that a single renaming puts both in place and a damaged
file is recognised. The checkpoint before the newest is kept to fall back on.
"""

import re
from pathlib import Path
from typing import Any

import torch

from pipeline.core import files
from pipeline.core.console import say
from pipeline.core.writable import naming_unwritable

KEPT = 2  # checkpoints
PART = "checkpoint.part"  # a checkpoint while it is written
NAME = re.compile(r"checkpoint-(\d+)-([0-9a-f]{64})\.pt")


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: where they lie; made if it isn't there.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder if it isn't there."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` steps, then remove all but the newest KEPT.

        Args:
            step: larger than at the last save.
            state: tensors, numbers and strings, in dictionaries and lists.

        Raises:
            UserError: there is no room; the checkpoints before it are kept.
        """
        temporary = self.folder / PART
        try:
            with naming_unwritable(self.folder, temporary), open(temporary, "wb") as file:
                torch.save(state, file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        temporary.replace(self.folder / f"checkpoint-{step:08}-{files.sha256(temporary)}.pt")
        for path in self._newest_first()[KEPT:]:
            path.unlink()

    def mend(self) -> None:
        """Remove half-written and damaged files, with a warning for each damaged one."""
        (self.folder / PART).unlink(missing_ok=True)
        damaged = False
        for path in self._newest_first():
            if files.sha256(path) != path.stem.rpartition("-")[2]:
                say(f"warning: {path} is damaged; the checkpoint before it is used instead")
                path.unlink()
                damaged = True
        if damaged and not self._newest_first():
            say("warning: there is no checkpoint before it; the training begins anew")

    def load(self, device: str | torch.device = "cpu") -> dict[str, Any] | None:
        """The newest state, None where there is none; call `mend` before, in one process."""
        for path in self._newest_first():
            return torch.load(path, map_location=device, weights_only=True)
        return None

    def remove(self) -> None:
        """Remove all checkpoints."""
        for path in self._newest_first():
            path.unlink()

    def _newest_first(self) -> list[Path]:
        paths = [path for path in self.folder.iterdir() if NAME.fullmatch(path.name)]
        return sorted(paths, key=lambda path: (path.name[:19], path.stat().st_mtime_ns))[::-1]
