"""External effects that no probe watches; a verdict lists them, and covers only the effects that were seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

SUFFIX = ", of what was seen"
"""Suffix of a verdict that does not cover all effects of the job."""
UNREACHED = "unreached"
"""Name of trials that did not reach their crash point again."""


@dataclass(frozen=True)
class NotSeen:
    """An external effect that no probe watches.

    :ivar name: the name under which a user accepts it: ``process``, ``socket`` or that of a library.
    :ivar what: description of the effect. :ivar line: the line of the job, ``file:line``; empty if it is not
        known.
    """

    name: str
    what: str
    line: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.what}" + (f", at {self.line}" if self.line else "")


class Unseen:
    """Collection of unseen effects, one for each name and line.

    :param leave: called instead of adding an effect.
    """

    def __init__(self, leave: Callable[[], NoReturn] | None = None) -> None:
        self._leave = leave
        self._found: dict[tuple[str, str], NotSeen] = {}

    def add(self, name: str, what: str, line: str = "") -> None:
        """Remember an effect, unless the same line had one of that name."""
        if self._leave is not None:
            self._leave()
        self._found.setdefault((name, line), NotSeen(name, what, line))

    def split(self, accepted: Iterable[str]) -> tuple[list[NotSeen], list[NotSeen]]:
        """Return the effects that were not accepted, and the accepted ones, by name."""
        names = set(accepted)
        found = sorted(self._found.values(), key=lambda each: (each.name, each.line))
        return [each for each in found if each.name not in names], [
            each for each in found if each.name in names
        ]

    def __str__(self) -> str:
        return "; ".join(map(str, self.split(())[0]))

    def __bool__(self) -> bool:
        return bool(self._found)
