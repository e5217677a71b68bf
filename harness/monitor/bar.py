"""A progress bar over many short trials; without a terminal, an occasional line."""

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
    """One line, with room for the ``^C`` of a terminal: that would go to the next line, and a stale bar would stay."""

    def __init__(self, console: Console, *, thread: bool = True) -> None:
        self._where = console  # the base draws before it has a console
        super().__init__(
            TextColumn("[bold]{task.description}"), BarColumn(None, table_column=Column(ratio=1)),
            MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            TextColumn("{task.fields[name]}", markup=False,
                       table_column=Column(max_width=NAME_COLUMNS, no_wrap=True, overflow="ellipsis")),
            # What is written to standard output may go into a file: it is not ours to redirect.
            console=console, transient=True, auto_refresh=thread, redirect_stdout=False,
        )  # fmt: skip

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Draw it: the bar itself gets the columns that the figures and the name leave."""
        table = super().make_tasks_table(tasks)
        table.width = max(1, self._where.width - len("^C"))
        return table


class TrialBar:
    """A progress bar over trials; without a terminal, a line now and then.

    :param total: how many trials there are.
    :param lines: how many lines without a terminal; 0 where each trial has one of its own.
    :param thread: True to draw it from a separate thread, so that the time goes on during a trial. Use False for
        trials that fork.
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
        """Say which trial runs now."""
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
        """Show how many are done, and of how many, if more are found on the way; lines then go by time."""
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
        """Take the bar away."""
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
    """A progress bar over the items of one job in this process; a context manager, and a stop source that never stops.

    Without a terminal it prints a line now and then.
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

    :param read: returns the line, or some with their styles; called four times a second, in a thread of its own.
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
