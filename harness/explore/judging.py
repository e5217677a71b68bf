"""Judge the outcome of a trial: no finding, or a finding with the lines of the job's own code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.explore.findings import AT_LEAST_ONCE, RANK, REFUSED, TWO_AT_ONCE, Finding
from harness.explore.points import Line, Point, between, innermost, lines_of
from harness.explore.trials import SAVES

if TYPE_CHECKING:
    from harness.explore.recording import Recording
    from harness.explore.targets import Target
    from harness.explore.trials import Result

CURSORS = {"lost", "wrong total", "duplicated", "error on resume"}
"""Verdicts that a wrong cursor can lead to."""
TWICE = {"freeze", "twice"}
"""Actions with two concurrent executions."""
UNDISTURBED = {"stop", "switch", "order"}
"""Actions after which nothing may be repeated: no execution was cut off."""
SHOWN = 3
"""Number of rows that a finding shows."""


@dataclass(frozen=True)
class Judge:
    """Makes findings from results.

    :ivar rows: whether rows are compared, not the result of a user's function. :ivar strict: whether a
        refusal by a new version is a finding. :ivar command: repeats a trial, with ``{trial}`` for its name.
    """

    target: Target
    recording: Recording
    rows: bool
    strict: bool
    command: str

    def finding(self, result: Result) -> Finding | None:
        """Return the finding of a result, or None."""
        trial, ending = result.trial, result.ending
        recording = self.recording.courses.get(trial.order, self.recording)
        good = ending.kind == "completed" and not result.differences
        if good and not (self.strict and result.refused):
            return None
        point = recording.points[-1] if trial.action == "order" else recording.point(*trial.points[0])
        files = self.target.files
        ways = (point.lines, result.then)
        if trial.action == "order":
            ways = (), ()
        elif trial.action == "crash":
            after = recording.after(point)
            before = recording.maker(point.state)
            ways = (before.lines if before else (), after.lines if after else ())
        lines = [*between(*ways, files)]
        lines += [line for line in self._of_the_job(ways) if line not in lines]
        what = "; ".join(map(str, result.differences[:SHOWN])) or ending.why
        if len(result.differences) > SHOWN:
            what += f"; and {len(result.differences) - SHOWN} more"
        raised = innermost(lines_of(ending.error), files) if ending.error else None
        if raised is not None:
            what, lines = f"{what}, raised at {raised}", [*lines, raised]
        if result.refused:
            rest = f"; the old version then went on: {what}" if what else ", nothing lost"
            what = f"the new version refused ({result.refused}){rest}"
        written = self._written(result, point.state)
        verdict = REFUSED if good else self._verdict(result, written, recording.saved(point.state))
        resumed, at = self._resumed(result, point) if verdict in CURSORS else ("", None)
        if at is not None and at not in lines:
            lines.append(at)
        ways_there = [innermost(each.lines, files) for _, each in written]
        return Finding(
            verdict=verdict,
            trial=str(trial),
            what=what + self._in_another_session(result, verdict),
            item=recording.marks[point.marks - 1] if point.marks else None,
            where=str(point),
            lines=tuple(str(line) for line in lines),
            written=tuple(dict.fromkeys(str(line) for line in ways_there if line is not None)),
            resumed=resumed,
            repeated=result.repeated or sum(each.times for each in result.differences),
            command=self.command.replace("{trial}", str(trial)),
        )

    def _of_the_job(self, ways: tuple[tuple[Line, ...], tuple[Line, ...]]) -> list[Line]:
        """Return the job's own line on both call paths, if they differ only in what it calls."""
        if any(map(self._is_the_job, between(*ways, self.target.files))):
            return []
        return [line for way in ways for line in way if self._is_the_job(line)][-1:]

    def _is_the_job(self, line: Line) -> bool:
        """Return whether a line belongs to the job's function, or to a method of its class."""
        name = line.code.co_qualname
        return any(name == owner or name.startswith(f"{owner}.") for owner in self.target.owners)

    def _resumed(self, result: Result, point: Point) -> tuple[str, Line | None]:
        """Return the step and cursor from which the next execution resumed, as text, and the line that set it."""
        trial, points = result.trial, self.recording.courses.get(result.trial.order, self.recording).points
        if not self.target.documented or trial.action != "crash" or len(trial.points) > 1:
            return "", None
        before = points[: points.index(point) + 1]
        last = max((index for index, each in enumerate(before) if each.kind in SAVES), default=None)
        if last is None:
            return "", None
        reached = [each for each in before[: last + 1] if each.kind == "checkpoint"]
        if not reached:
            return "", None
        line = innermost(reached[-1].lines, self.target.files)
        words = reached[-1].label.removeprefix("checkpoint at ")
        at = f", set at {line}" if line is not None else ""
        return f"resumed from step {words}{at}", line

    def _written(self, result: Result, state: int) -> list[tuple[int, Point]]:
        """Return, for each wrong row, the state and the point in which the clean run last wrote it."""
        found = []
        for difference in result.differences if self.rows else ():
            made = self.recording.written(difference, state)
            maker = self.recording.maker(made)
            if maker is not None:
                found.append((made, maker))
        return found

    def _verdict(self, result: Result, written: list[tuple[int, Point]], saved: int) -> str:
        if result.ending.kind != "completed":
            kinds = {"endless": "never finishes", "failed": "error on resume"}
            return kinds.get(result.ending.kind, result.ending.why)
        # The clean run does not show writes between two interruptions, or of two concurrent workers.
        shown = len(result.trial.points) == 1 and result.trial.action not in TWICE
        # An item in progress may have written before the last save, which belonged to another item.
        fresh = not shown or self.recording.several or all(state > saved for state, _ in written)
        if fresh and self._is_the_price(result):
            return AT_LEAST_ONCE
        if result.trial.action in TWICE:
            # An epoch guards a job of this package; only its own statements guard a function.
            return "superseded worker wrote" if self.target.documented else TWO_AT_ONCE
        return min((each.kind for each in result.differences), key=RANK.index)

    def _is_the_price(self, result: Result) -> bool:
        """Return whether only work after the last save was repeated, which the durability permits."""
        more = all(each.kind == "duplicated" or each.more for each in result.differences)
        if not more or not self.target.documented or result.trial.action in UNDISTURBED:
            return False
        if self._in_transactions(result):
            return False
        repeated = result.repeated or sum(each.times for each in result.differences)
        return repeated <= result.price or result.trial.action in TWICE

    def _in_transactions(self, result: Result) -> bool:
        """Return whether with_transaction() would commit some of the wrong rows with the progress."""
        durability = getattr(self.target, "durability", None)
        return bool(durability is not None and durability.transactional) and any(
            self.recording.reference.in_transactions(each.table) for each in result.differences
        )

    def _in_another_session(self, result: Result, verdict: str) -> str:
        if verdict not in {"duplicated", "superseded worker wrote"} or not self._in_transactions(result):
            return ""
        tables = [
            each.table for each in result.differences if self.recording.reference.in_transactions(each.table)
        ]
        return (
            "; with_transaction() covers only the session of step.transaction(); look for writes to "
            f"{', '.join(dict.fromkeys(tables))} in another session or outside the block"
        )
