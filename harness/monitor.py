"""What moves in the terminal; beside the commands the only importer of rich."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINES = 10
"""How many lines a bar leaves where there is no terminal."""


class TrialBar:
    """A progress bar over trials; without a terminal, a line now and then.

    :param total: how many trials there are.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self._console = console or Console()
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
            and self._done * LINES // self._total > (self._done - 1) * LINES // self._total
        ):
            self._console.print(f"trials {self._done}/{self._total}", highlight=False)

    def stop(self) -> None:
        """Take the bar away."""
        self._progress.stop()
