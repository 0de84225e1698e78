"""Attacks that end the process that runs them, or never come back."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from robustdml.results import AttackEntry
from robustdml.threat import ThreatModel


@dataclass(frozen=True)
class Odd:
    """Returns the images a little darker, but for what ``way`` does first.

    Args:
        way: "segfaults", "hangs", "is killed once" (as long as there is no file ``mark``), or "does nothing".
        mark: a file.
    """

    way: str
    mark: str = ""
    threat = ThreatModel(8 / 255)

    def entry(self) -> AttackEntry:
        facts = {"goal": "margin", "knowledge": "none", "norm": "linf", "citations": ()}
        return AttackEntry(spec=f"odd-{self.way.replace(' ', '-')}", name=self.way, library="mine", **facts)

    def target_rows(self, references, *, seed):
        return None

    def __call__(self, model, images, references, *, seed):
        if self.way == "segfaults":
            ctypes.string_at(0)
        if self.way == "hangs":
            time.sleep(3600)
        if self.way == "is killed once" and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return (images - 4 / 255).clamp(0, 1)
