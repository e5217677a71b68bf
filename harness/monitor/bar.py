"""Progress bar for many short trials; without a terminal, it prints lines at intervals."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from harness.boundary.texts import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from harness.progress import Position

LINES = 10
"""Number of lines a bar over trials prints without a terminal."""

LINE_SECONDS = 10.0
"""Interval between lines of a bar with an unknown end, without a terminal, in seconds."""


REFRESH_SECONDS = 0.1
"""Interval between two drawings of a bar that no thread draws."""

NAME_COLUMNS = 30
"""Limit of the part of a line for the name of a trial."""


class _Line(Progress):
    """One line, with room for the ``^C`` of a terminal: otherwise it would wrap, and an old bar would stay."""

    def __init__(self, console: Console, *, thread: bool = True) -> None:
        self._where = console  # the base class draws before it has a console
        super().__init__(
            TextColumn("[bold]{task.description}"), BarColumn(None, table_column=Column(ratio=1)),
            MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            TextColumn("{task.fields[name]}", markup=False,
                       table_column=Column(max_width=NAME_COLUMNS, no_wrap=True, overflow="ellipsis")),
            # Standard output may go into a file, so do not redirect it.
            console=console, transient=True, auto_refresh=thread, redirect_stdout=False,
        )  # fmt: skip

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Draw it: the bar gets the columns that the figures and the name do not need."""
        table = super().make_tasks_table(tasks)
        table.width = max(1, self._where.width - len("^C"))
        return table


class TrialBar:
    """Progress bar for trials; without a terminal, it prints lines at intervals.

    :param total: number of trials. :param lines: number of lines without a terminal; 0 if each trial prints
        its own. :param thread: True to draw it from a separate thread, so that its time advances during a
        trial. Use False for trials that fork.
    """

    def __init__(
        self,
        total: int,
        console: Console | None = None,
        *,
        lines: int = LINES,
        thread: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._lines, self._clock = console or Console(), lines, clock
        self._total, self._done = total, 0
        self._progress = _Line(self._console, thread=thread)
        self._task = self._progress.add_task("trials", total=total, name="")
        self._next_line, self._next_drawing = clock() + LINE_SECONDS, 0.0 if not thread else float("inf")
        if self._console.is_terminal:
            self._progress.start()

    def begin(self, name: str) -> None:
        """Show the name of the current trial."""
        self._progress.update(self._task, name=name)

    def advance(self, name: str | None = None) -> None:
        """Count one trial as done.

        :param name: name to show from now on, if :meth:`begin` is not called.
        """
        if name is not None:
            self.begin(name)
        before = self._done
        self._show(before + 1, self._total)
        if self._done * self._lines // self._total > before * self._lines // self._total:
            self._say()

    def reach(self, done: int, total: int) -> None:
        """Show the number of trials done and the total, if it has changed; lines then come at intervals."""
        self._show(done, total)
        if self._clock() >= self._next_line:
            self._next_line = self._clock() + LINE_SECONDS
            self._say()

    def tell(self, line: str) -> None:
        """Print a line on standard output; above the bar, if that is a terminal too."""
        line = printable(line, lines=True)
        if self._console.is_terminal and sys.stdout.isatty():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    def stop(self) -> None:
        """Remove the bar."""
        if self._console.is_terminal:  # otherwise it would print an empty line
            self._progress.stop()

    def _show(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        self._progress.update(self._task, completed=done, total=total)
        if self._console.is_terminal and self._clock() >= self._next_drawing:
            self._next_drawing = self._clock() + REFRESH_SECONDS
            self._progress.refresh()

    def _say(self) -> None:
        if not self._console.is_terminal:
            self._console.print(f"trials {self._done}/{self._total}", highlight=False)


class ItemBar:
    """Progress bar for the items of one job in this process; a context manager, and a stop source that never stops.

    Without a terminal it prints lines at intervals.
    """

    interval = 0.25

    def __init__(self, name: str, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock, self._name = console, clock, name
        self._progress = _Line(console)
        self._task = self._progress.add_task(name, total=None, name="")
        self._next_line = clock() + LINE_SECONDS

    def __enter__(self) -> ItemBar:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __call__(self, at: Position) -> None:
        """Show the job's position."""
        self._progress.update(self._task, completed=at.done, total=at.total)
        if not self._console.is_terminal and self._clock() >= self._next_line:
            self._next_line = self._clock() + LINE_SECONDS
            of = "" if at.total is None else f"/{at.total:,}"
            self._console.print(f"{self._name} {at.done:,}{of} items", highlight=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the bar."""
        if self._console.is_terminal:
            self._progress.stop()


class LiveLine:
    """Status line on a terminal while something runs; a context manager.

    :param read: returns the line, or some with their styles; called four times a second, in a separate thread.
    """

    def __init__(self, console: Console, read: Callable[[], str | Text]) -> None:
        self._live = Live(
            get_renderable=lambda: _line(read()),
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


def _line(told: str | Text) -> Text:
    found = Text(printable(told), style="cyan") if isinstance(told, str) else told
    found.no_wrap, found.overflow = True, "ellipsis"
    return found
