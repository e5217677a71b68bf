"""Jobs that the page enqueues."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from harness import ContinuableJob, Enumerator, IterationJob, times


class Typed(IterationJob):
    """Takes arguments of all kinds."""

    def build_enumerator(
        self,
        number: int,
        name: str = "none",
        *,
        share: float = 0.5,
        dry: bool = False,
        day: date | None = None,
        at: datetime | None = None,
        amount: Decimal = Decimal(1),
        key: UUID | None = None,
        mode: Literal["all", "new"] = "all",
        ids: list[int] | None = None,
        more: Any = None,
        cursor: Any,
    ) -> Enumerator[int]:
        """Count to the number."""
        return times(number, cursor=cursor)

    def each_iteration(self, index: int, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""


class NoArguments(ContinuableJob):
    """Takes none."""

    def perform(self) -> None:
        """Call no step."""


JOBS = [Typed, NoArguments]
