"""Observers of a simulated process, which act at one of its Redis commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.explore.crash import SimulatedProcess, living


class Observer:
    """Needs nothing of what it hears."""

    def reach(self, simulated: SimulatedProcess, kind: str, label: str, lost: Any) -> object:
        """Hear of a crash point."""

    def meet(self, thing: Any) -> None:
        """Hear of a connection."""

    def serves(self, raw: Any) -> bool:
        """Know of no PostgreSQL."""
        del raw
        return False

    def sent(self, kind: str, label: str, body: bytes = b"") -> None:
        """Hear of a message."""

    def unseen(self, name: str, what: str, line: str) -> None:
        """Hear of an effect that no probe watches."""


class At(Observer):
    """Does something after a command, in no simulated process.

    :ivar met: how often the command was sent.
    """

    def __init__(self, label: str, action: Callable[[], object]) -> None:
        self.label, self.action, self.met = label, action, 0

    def reach(self, simulated: SimulatedProcess, kind: str, label: str, lost: Any) -> object:
        """Act after the command."""
        if (kind, label) == ("redis", self.label):
            self.met += 1
            with living(None):
                self.action()
        return None


class CrashAt(Observer):
    """Ends the process at one of its crash points, counted from 1, or loses the answer there.

    :ivar reached: how many crash points there were.
    """

    def __init__(self, number: int, *, lose: bool) -> None:
        self.number, self.lose, self.reached = number, lose, 0

    def reach(self, simulated: SimulatedProcess, kind: str, label: str, lost: Any) -> object:
        """Crash, or raise what the client raises where the answer is lost."""
        self.reached += 1
        if self.reached == self.number:
            if not self.lose:
                simulated.die()
            if lost is not None:
                raise lost()
        return None
