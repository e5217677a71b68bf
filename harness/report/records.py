"""Fields of ``reports/comparison.json``.

Reports are rendered from this file alone. All numbers are finite and 0 or more. Unknown fields are ignored
when reading. A field with a default may be missing, as in older files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Pattern = Literal["plain", "steps", "iteration"]
Verdict = Literal["exactly once", "duplicated", "lost", "wrong total", "never finished", "failed"]
Outcome = Literal["exactly once", "duplicated", "lost", "wrong total", "never finished", "failed", "not hit"]
Ended = Literal["completed", "interrupted", "failed", "cut off", "killed"]

PATTERNS: tuple[Pattern, ...] = get_args(Pattern)


@dataclass(frozen=True)
class Environment:
    """Machine and packages of the measurements.

    :ivar packages: names and versions of relevant packages. :ivar pace_s: duration of the work on one item,
        in seconds. :ivar generated: time in ISO 8601.
    """

    python: str
    platform: str
    cpus: int
    packages: Mapping[str, str]
    size: str
    pace_s: float
    generated: str


@dataclass(frozen=True)
class Execution:
    """One attempt at a job; its times are seconds since the start of the first one.

    :ivar reason: reason of its interruption from the stop source. :ivar items: pairs ``(time, items started
        in this execution so far)``.
    """

    start_s: float
    end_s: float
    ended: Ended
    reason: str | None
    items: tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class Timeline:
    """Events of a run, in order."""

    executions: tuple[Execution, ...]


@dataclass(frozen=True)
class Run:
    """One trial of a job in one of its forms: interrupted, and resumed until it was over.

    :ivar lost: items whose effect never happened.
    :ivar duplicated: items whose effect happened more than once.
    :ivar duplicated_by_key: duplicated items that remain when copies are removed by idempotency key; None if
        effects have no key. :ivar repeated: items run again, with or without a visible effect.
    :ivar stop_latency_s: the longest time from a request to stop until the execution had ended.
    :ivar resume_latency_s: the longest time from the end of an execution until the next worked on an item.
    :ivar progress_bytes: size of the largest progress saved.
    :ivar checks: conditions on the outcome, and the result of each.
    :ivar queue: ``rq``, ``celery`` or ``dramatiq``.
    :ivar module: module of the scenario, for the command that repeats the run; None in older files.
    """

    scenario: str
    pattern: Pattern
    interruption: str
    durability: str
    broker: str
    database: str
    completed: bool
    executions: int
    items: int
    lost: int
    duplicated: int
    duplicated_by_key: int | None
    repeated: int
    stop_latency_s: float | None
    resume_latency_s: float | None
    elapsed_s: float
    progress_bytes: int | None
    verdict: Verdict
    checks: Mapping[str, bool]
    timeline: Timeline
    module: str | None = None
    queue: str = "rq"

    @property
    def interrupted(self) -> bool:
        """True if the run was meant to be interrupted."""
        return self.interruption != "none"

    @property
    def hit(self) -> bool:
        """True if the interruption reached the job: an execution ended early, or there was a second one."""
        ended = any(each.ended != "completed" for each in self.timeline.executions)
        return self.interrupted and (ended or self.executions > 1)

    @property
    def outcome(self) -> Outcome:
        """The verdict, or ``not hit`` for a good run that was not interrupted and so shows nothing."""
        missed = self.interrupted and not self.hit and self.verdict == "exactly once"
        return "not hit" if missed else self.verdict

    @property
    def stop_s(self) -> float | None:
        """Seconds to stop; None for the plain form and for kills, which are not asked to stop."""
        return None if self.killed or self.pattern == "plain" else self.stop_latency_s

    @property
    def interruptions(self) -> int:
        """Number of executions that were interrupted or killed."""
        return sum(each.ended in {"interrupted", "cut off", "killed"} for each in self.timeline.executions)

    @property
    def killed(self) -> bool:
        """True if its interruption is a SIGKILL."""
        return self.interruption.startswith("kill:")


@dataclass(frozen=True)
class Benchmark:
    """Cost of a job that is not interrupted.

    :ivar median_s: seconds a run; ``iqr_s`` is the spread of its middle half.
    :ivar ratio_to_plain: median divided by that of the plain form of the same scenario, ``ratio_low`` and
        ``ratio_high`` the same of the nearest and the farthest quartiles; None without a plain form.
    :ivar durability: durability of the job; None for the job's own.
    :ivar kind: ``work`` for a job with real work, ``pattern`` for a job whose items do nothing, against a bare loop.
    """

    scenario: str
    pattern: Pattern
    items: int
    rounds: int
    median_s: float
    iqr_s: float
    min_s: float
    per_item_us: float
    ratio_to_plain: float | None
    ratio_low: float | None
    ratio_high: float | None
    durability: str | None = None
    kind: Literal["work", "pattern"] = "work"

    @property
    def overhead_ns(self) -> float | None:
        """Nanoseconds an item above the plain form; None without a plain form."""
        if self.ratio_to_plain is None:
            return None
        return self.per_item_us * 1e3 * (1 - 1 / self.ratio_to_plain)


@dataclass(frozen=True)
class Exploration:
    """Exploration of a job, and its result.

    :ivar verdict: text of the explorer's verdict: ``exactly once``, ``at least once, repeated ≤ 5``,
        ``lost``, … :ivar points: number of crash points of a clean run. :ivar states: number of distinct
        external states between them. :ivar tried: number of these states in which a crash was tried. :ivar
        trials: total number of runs. :ivar lines: of the job's own code. :ivar lines_tried: those of them
        that a crash was tried behind. :ivar repeated_most: the most items that one interruption had done
        again.
    """

    scenario: str
    pattern: Pattern
    durability: str
    verdict: str
    points: int
    states: int
    tried: int
    trials: int
    lines: int
    lines_tried: int
    repeated_most: int
    seconds: float
