"""Trials by name.

==============================  ===================================================================================
``crash:commit#12``             crash there; recover; run to the end
``crash:commit#12+commit#3``    crash there, and again during the recovery, at its third commit
``stop:checkpoint#7``           stop gracefully there; continue
``lost-reply:commit#12``        the commit takes place, but the job gets an error instead of an answer
``cancel:before-commit#12``     the task that awaits the commit is cancelled while it waits
``freeze:before-commit#12``     pause there; a second execution takes over and completes; then continue
``twice:before-commit#12``      pause there; a second execution reaches the point after the plus sign; the first
``+before-statement#3``         continues to its end, then the second
``switch:before-statement#7``   the item there waits until no other item can continue; only with ``concurrency``
``order:seed#3``                concurrent items continue in an order of that seed
``crash:commit#12@3``           crash there, in that order; the same for stop, lost-reply and cancel
==============================  ===================================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from harness.errors import UsageError

Action = Literal["crash", "stop", "lost-reply", "cancel", "freeze", "twice", "switch", "order"]
ACTIONS: tuple[Action, ...] = ("switch", "order", "crash", "stop", "lost-reply", "cancel", "freeze", "twice")
WITH_TWO_POINTS = {"crash", "twice"}
"""Actions whose trials may have a second point."""
IN_ORDERS = {"crash", "stop", "lost-reply", "cancel"}
"""Actions that are also tried in other orders of concurrent items."""

_NAME = re.compile(
    r"(crash|stop|lost-reply|cancel|freeze|twice|switch|order):([a-z-]+)#([1-9][0-9]*)"
    r"(?:\+([a-z-]+)#([1-9][0-9]*))?(?:@([1-9][0-9]*))?"
)


@dataclass(frozen=True)
class PlannedTrial:
    """Interruption: an action and its crash points.

    :ivar points: pairs of kind and number; a second one is counted from the first crash on.
    :ivar order: number of the order in which concurrent items continue; 0 for one after the other.
    """

    action: Action
    points: tuple[tuple[str, int], ...]
    order: int = 0

    def __str__(self) -> str:
        name = f"{self.action}:{'+'.join(f'{kind}#{number}' for kind, number in self.points)}"
        return f"{name}@{self.order}" if self.order and self.action != "order" else name


def parse_trial(name: str) -> PlannedTrial:
    """Return the trial of that name.

    :raises UsageError: saying what was found and what is allowed.
    """
    match = _NAME.fullmatch(name)
    wrong = (
        match is None
        or (match[4] and match[1] not in WITH_TWO_POINTS)
        or (match[1] == "twice" and not match[4])
        or ((match[1] == "order") != (match[2] == "seed"))
        or (match[6] and (match[4] or match[1] not in IN_ORDERS))
    )
    if match is None or wrong:
        raise UsageError(
            f"unknown trial {name!r}; use crash:KIND#N, crash:KIND#N+KIND#N, stop:checkpoint#N, "
            "lost-reply:KIND#N, cancel:KIND#N, freeze:KIND#N, twice:KIND#N+KIND#N, switch:KIND#N and order:seed#N, "
            "such as crash:commit#12"
        )
    points = ((match[2], int(match[3])), *(((match[4], int(match[5])),) if match[4] else ()))
    order = points[0][1] if match[1] == "order" else int(match[6] or 0)
    return PlannedTrial(match[1], points, order)  # type: ignore[arg-type]
