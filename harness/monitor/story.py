"""Story of a job from its history: one part for each execution, and the use of its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from harness.durability import parse_durability
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.progress import Progress
    from harness.queues.history import Entry, Heartbeat


@dataclass(frozen=True)
class Part:
    """One execution.

    Times are seconds since the start of the story.

    :ivar start_s: its start. :ivar end_s: its end; for a crashed one, its last sign of life; for a running
        one, now. :ivar outcome: as in the history, or ``died``, or ``running``. :ivar reason: reason of its
        end. :ivar began_at: items saved at its start. :ivar came_to: items at its end or last sign of life;
        None if unknown. :ivar repeated: items of the one before that it had to do again; after a crash, those
        that are known of. :ivar after_crash: True if the one before crashed, so that more may have been
        repeated: the item that was in progress, and items done since the last sign of life. :ivar
        repeated_at_most: the limit of that in items, the one in progress included; None if there is none.
        :ivar waited_s: seconds in the queue before it. :ivar unnoticed_s: seconds before that, in which the
        crash of the one before was not yet detected.
    """

    epoch: int
    start_s: float
    end_s: float
    outcome: str
    reason: str | None
    began_at: int
    came_to: int | None
    repeated: int
    waited_s: float
    unnoticed_s: float
    worker: str
    durability: str
    after_crash: bool = False
    repeated_at_most: int | None = None

    @property
    def items(self) -> int | None:
        """Items done in it, including repeated ones."""
        return None if self.came_to is None else max(0, self.came_to - self.began_at)

    @property
    def lasted_s(self) -> float:
        """Time it ran."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Story:
    """History of a job.

    :ivar state: its current state. :ivar failure: reason why its queue failed it, if no execution records
        one. :ivar began_at: seconds of the Redis server's clock at the start of the story. :ivar forgotten:
        number of executions before the first recorded one. :ivar total_s: from its first place in the queue
        to its end, or to now. :ivar working_s: in executions. :ivar waiting_s: in the queue. :ivar
        unnoticed_s: until a crash was detected. :ivar repeated: items that are known to have been done again.
        :ivar repeated_s: approximate seconds of repeated work.
    """

    job_id: str
    description: str
    state: str
    failure: str | None
    began_at: float
    forgotten: int
    done: int
    total: int | None
    parts: tuple[Part, ...]
    total_s: float
    working_s: float
    waiting_s: float
    unnoticed_s: float
    repeated: int
    repeated_s: float

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)


def story(
    job_id: str,
    description: str,
    entries: Sequence[Entry],
    heartbeat: Heartbeat | None,
    *,
    now: float,
    progress: Progress | None = None,
    failure: str | None = None,
) -> Story:
    """Build the story from the entries.

    :param entries: entries of one job, the oldest first, with at least one start. :param now: seconds of the
        Redis server's clock. :param progress: the stored progress, if known. :param failure: reason why the
        queue failed the job, if it did.
    """
    starts = sorted((each for each in entries if each.what == "start"), key=lambda each: each.epoch)
    ends = {each.epoch: each for each in entries if each.what == "end"}
    first, latest = starts[0], starts[-1].epoch
    if latest not in ends:
        unwritten = _unwritten_end(starts[-1], heartbeat, progress, failure)
        if unwritten is not None:
            ends[latest] = unwritten
    began_at = min(first.at, first.enqueued_at or first.at)
    parts: list[Part] = []
    for index, start in enumerate(starts):
        following = starts[index + 1] if index + 1 < len(starts) else None
        parts.append(
            _part(
                start, following, ends.get(start.epoch), heartbeat, now=now, began_at=began_at, before=parts
            )
        )
    last = parts[-1]
    failure = None if last.outcome == "failed" else failure
    done = max([last.came_to or last.began_at, progress.done if progress else 0])
    totals = [each.total for each in entries if each.total is not None]
    return Story(
        job_id=job_id, description=description, state="failed" if failure else last.outcome, failure=failure,
        began_at=began_at, forgotten=first.epoch - 1, done=done, total=totals[-1] if totals else None,
        parts=tuple(parts),
        total_s=last.end_s, working_s=sum(part.lasted_s for part in parts),
        waiting_s=sum(part.waited_s for part in parts), unnoticed_s=sum(part.unnoticed_s for part in parts),
        repeated=sum(part.repeated for part in parts), repeated_s=_repeated_s(parts),
    )  # fmt: skip


def _part(
    start: Entry,
    following: Entry | None,
    end: Entry | None,
    heartbeat: Heartbeat | None,
    *,
    now: float,
    began_at: float,
    before: Sequence[Part],
) -> Part:
    outcome, reason, ended_at, came_to = "died", None, start.at, None
    if end is not None:
        outcome, reason, ended_at, came_to = end.outcome, end.reason, end.at, end.done
    elif following is not None:
        sign = following.died
        if sign is not None and sign.epoch == start.epoch:
            # The next execution began with progress that was saved after that sign of life and before the crash.
            ended_at, came_to = max(start.at, sign.at), max(sign.done, following.done)
    else:
        outcome, ended_at = "running", now
        if heartbeat is not None and heartbeat.epoch == start.epoch:
            came_to = heartbeat.done
    last = before[-1] if before else None
    free_at = began_at + last.end_s if last else began_at
    # The clocks of two machines may differ: waiting starts after the previous end and ends at the start.
    queued_at = min(max(start.enqueued_at or free_at, free_at), start.at)
    died_before = last is not None and last.outcome == "died"
    waited_from = queued_at if died_before else free_at
    return Part(
        epoch=start.epoch, start_s=start.at - began_at, end_s=max(ended_at, start.at) - began_at, outcome=outcome,
        reason=reason, began_at=start.done, came_to=came_to,
        repeated=max(0, last.came_to - start.done) if last and last.came_to is not None else 0,
        waited_s=max(0.0, start.at - waited_from), unnoticed_s=max(0.0, queued_at - free_at) if died_before else 0.0,
        worker=start.worker, durability=start.durability, after_crash=died_before,
        repeated_at_most=_most(last.durability) if last is not None and died_before else None,
    )  # fmt: skip


def _unwritten_end(
    start: Entry, heartbeat: Heartbeat | None, progress: Progress | None, failure: str | None
) -> Entry | None:
    """Return the end of the latest execution from other stored data, if the history does not have it.

    Redis may not have answered the write; and a worker that fails a job of a lost process writes none.
    """
    sign = heartbeat if heartbeat is not None and heartbeat.epoch == start.epoch else None
    end = replace(start, what="end", at=max(start.at, sign.at) if sign else start.at)
    if progress is not None and progress.ended >= start.epoch and progress.state not in {"new", "running"}:
        return replace(end, done=progress.done, outcome=progress.state, reason=progress.reason)
    return replace(end, done=sign.done if sign else start.done, outcome="died") if failure else None


def _most(durability: str) -> int | None:
    """Return the maximum number of items that a crash repeats: those between two saves, with the current one."""
    try:
        return parse_durability(durability).items
    except UsageError:  # from another release, or unknown
        return None


def _repeated_s(parts: Sequence[Part]) -> float:
    seconds = 0.0
    for before, part in pairwise(parts):
        if part.repeated and before.items:
            seconds += before.lasted_s * min(1.0, part.repeated / before.items)
    return seconds
