"""Judge a trial's outcome: no finding, or a finding with the lines of the job's own code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.explore.findings import AT_LEAST_ONCE, RANK, REFUSED, Finding
from harness.explore.points import Point, between, innermost, lines_of

if TYPE_CHECKING:
    from harness.explore.recording import Recording
    from harness.explore.targets import Target
    from harness.explore.trials import Result

SHOWN = 3
"""Number of rows a finding shows."""


@dataclass(frozen=True)
class Judge:
    """Makes findings of results.

    :ivar rows: whether rows are compared, and not what a function of the user's returns.
    :ivar strict: whether it is a finding that a new version refuses to go on.
    :ivar command: repeats a trial, with ``{trial}`` for its name.
    """

    target: Target
    recording: Recording
    rows: bool
    strict: bool
    command: str

    def finding(self, result: Result) -> Finding | None:
        """Return what is wrong, or None."""
        trial, ending, recording = result.trial, result.ending, self.recording
        good = ending.kind == "completed" and not result.differences
        if good and not (self.strict and result.refused):
            return None
        point, files = recording.point(*trial.points[0]), self.target.files
        ways = (point.lines, result.then)
        if trial.action == "crash":
            after = recording.after(point)
            before = recording.maker(point.state)
            ways = (before.lines if before else (), after.lines if after else ())
        lines = between(*ways, files)
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
        ways_there = [innermost(each.lines, files) for each in written]
        return Finding(
            verdict=REFUSED if good else self._verdict(result, written, recording.saved(point.state)),
            trial=str(trial),
            what=what,
            item=recording.marks[point.marks - 1] if point.marks else None,
            where=str(point),
            lines=tuple(str(line) for line in lines),
            written=tuple(dict.fromkeys(str(line) for line in ways_there if line is not None)),
            repeated=result.repeated or sum(each.times for each in result.differences),
            command=self.command.replace("{trial}", str(trial)),
        )

    def _written(self, result: Result, state: int) -> list[Point]:
        """Return where the clean run had last written each row that is wrong now."""
        if not self.rows:
            return []
        written = [self.recording.written(each, state)[-1:] for each in result.differences]
        return [point for points in written for point in points]

    def _verdict(self, result: Result, written: list[Point], saved: int) -> str:
        if result.ending.kind != "completed":
            kinds = {"endless": "never finishes", "failed": "error on resume"}
            return kinds.get(result.ending.kind, result.ending.why)
        # What was written between two interruptions, or by two workers at a time, the clean run does not tell.
        told = len(result.trial.points) == 1 and result.trial.action != "freeze"
        fresh = not told or all(point.state > saved for point in written)
        if fresh and self._is_the_price(result):
            return AT_LEAST_ONCE
        if result.trial.action == "freeze":
            return "superseded worker wrote"
        return min((each.kind for each in result.differences), key=RANK.index)

    def _is_the_price(self, result: Result) -> bool:
        """Return whether nothing but what durability allows was repeated: what came after progress was saved."""
        more = all(each.kind == "duplicated" or each.more for each in result.differences)
        if not more or not self.target.documented or result.trial.action == "stop":
            return False
        repeated = result.repeated or sum(each.times for each in result.differences)
        return repeated <= result.price or result.trial.action == "freeze"
