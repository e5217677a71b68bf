"""A progress bar over many short things; without a terminal, a line now and then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from harness.progress import Position

LINES = 10
"""How many lines a bar over trials leaves where there is no terminal."""

LINE_SECONDS = 10.0
"""After how long a bar over items says again where it is, where there is no terminal."""


class TrialBar:
    """A progress bar over trials; without a terminal, a line now and then.

    :param total: how many trials there are.
    :param lines: how many lines without a terminal; 0 where each trial has one of its own.
    """

    def __init__(self, total: int, console: Console | None = None, *, lines: int = LINES) -> None:
        self._console, self._lines = console or Console(), lines
        self._total, self._done = total, 0
        self._progress = Progress(
            TextColumn("[bold]trials"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[name]}"),
            console=self._console, expand=True, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("trials", total=total, name="")
        if self._console.is_terminal:
            self._progress.start()

    def advance(self, name: str) -> None:
        """Count one trial as done."""
        self._done += 1
        self._progress.update(self._task, advance=1, name=name)
        if (
            not self._console.is_terminal
            and self._done * self._lines // self._total > (self._done - 1) * self._lines // self._total
        ):
            self._console.print(f"trials {self._done}/{self._total}", highlight=False)

    def stop(self) -> None:
        """Take the bar away."""
        if self._console.is_terminal:  # else it would print an empty line
            self._progress.stop()


class ItemBar:
    """A progress bar over the items of one job in this process; a context manager, and a stop source that never stops.

    Without a terminal it prints a line now and then.
    """

    interval = 0.25

    def __init__(self, name: str, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock, self._name = console, clock, name
        self._progress = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=console, expand=True, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task(name, total=None)
        self._next_line = clock() + LINE_SECONDS

    def __enter__(self) -> ItemBar:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __call__(self, at: Position) -> None:
        """Show where the job is."""
        self._progress.update(self._task, completed=at.done, total=at.total)
        if not self._console.is_terminal and self._clock() >= self._next_line:
            self._next_line = self._clock() + LINE_SECONDS
            of = "" if at.total is None else f"/{at.total:,}"
            self._console.print(f"{self._name} {at.done:,}{of} items", highlight=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take the bar away."""
        if self._console.is_terminal:
            self._progress.stop()


class LiveLine:
    """A line that says what there is while something goes on, on a terminal only; a context manager.

    :param read: returns the line; called four times a second, in a thread of its own.
    """

    def __init__(self, console: Console, read: Callable[[], str]) -> None:
        self._live = Live(
            get_renderable=lambda: Text(read(), style="cyan", no_wrap=True, overflow="ellipsis"),
            console=console, transient=True, refresh_per_second=4,
        )  # fmt: skip
        self._shown = console.is_terminal

    def __enter__(self) -> LiveLine:
        if self._shown:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown:
            self._live.stop()
