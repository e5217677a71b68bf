"""Orders in which concurrent items continue: one item after the other, or chosen by a seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol, TypeVar

STAY = (0.0, 0.5, 0.8)
"""Probabilities that the same item continues if it can; the number of an order selects one."""


class Numbered(Protocol):
    """Task or thread that can continue; ``number`` is its place in the order of the starts."""

    number: tuple[int, ...]


T = TypeVar("T", bound=Numbered)


class Order:
    """Order of one execution.

    :param number: 0 for one item after the other; otherwise a seed. :param execution: number of the execution.
    """

    def __init__(self, number: int, execution: int) -> None:
        self._random = Random(f"{number} {execution}") if number else None  # noqa: S311 - to be repeatable
        self._stay = STAY[number % len(STAY)]

    def choose(self, turn: T | None, parties: Sequence[T]) -> T:
        """Return the party that continues.

        :param turn: the party that continued last. :param parties: those that can continue, at least one.
        """
        can_stay = turn is not None and turn in parties
        if self._random is None:
            return turn if turn is not None and can_stay else min(parties, key=lambda each: each.number)
        if turn is not None and can_stay and self._random.random() < self._stay:
            return turn
        return self._random.choice(sorted(parties, key=lambda each: each.number))
