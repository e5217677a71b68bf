"""Checkpoint logic: decide whether to stop and whether to save.

While the store is unreachable, the job continues for ``max_unsaved``. Then it holds at a checkpoint: it repeats the
save until the save succeeds or a stop source says stop. So a crash during an outage of any length repeats at most the
work of ``max_unsaved`` and of one interval of the durability. :mod:`harness.runtime.saves` says what a crash at each
write means.

**When to check.** A check of the stop sources is due after their shortest interval, when a save is due, and at the
deadline of ``max_runtime``. A :class:`~harness.runtime.ticker.Ticker` wakes the job at that time, so the job reads no
clock before. The job reads the clock itself at each checkpoint if a check is due within milliseconds, if the clock is
not ``time.monotonic``, or if no thread can be started.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING

from harness import events, overrides
from harness.errors import CheckpointInTransaction, Interrupt, InterruptSwallowed, ProgressUnavailable
from harness.progress import NOW
from harness.runtime.holds import HOLD_SECONDS
from harness.runtime.policy import read_seconds
from harness.runtime.saves import Saves
from harness.runtime.ticker import SHORTEST, Ticker
from harness.stops import interval_of, reason_of

if TYPE_CHECKING:
    from harness.durability import Durability
    from harness.progress import Progress
    from harness.runtime.saves import Setup

LOOK_SECONDS = 1.0
"""Maximum interval between two checks of the stop sources."""

WORTH_A_THREAD = 200
"""Number of clock reads after which an execution starts a ticker; a ticker costs about as much."""


class Look(Enum):
    """Work of a checkpoint: none, a save, or a check of the stop sources and perhaps a save."""

    NOTHING = auto()
    SAVE = auto()
    ASK = auto()


class Checkpoints(Saves):
    """Part of an execution that the patterns call after each item.

    The hot path is in the patterns: an item ends with one comparison, ``progress.done >= progress.check_at``. If it is
    true, the pattern calls :meth:`run_checkpoint`. Code that needs a checkpoint sooner, such as a signal handler or the
    ticker, calls :meth:`wake`.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.holding = False
        self._tells_later = False
        """True if the interruption is raised after the items in progress have ended."""
        self._sources = setup.sources
        self._interval = min([LOOK_SECONDS, *map(interval_of, setup.sources)])
        self._woken = True
        self._ask_at = self._look_at = -math.inf
        """Time of the next call of each stop source, and of the next check, unless something wakes the job earlier."""
        self._ticker: Ticker | None = None
        self._ticks_at = math.nan
        """Time at which the ticker wakes the job."""
        self._clock_reads = 0
        self._pending_reason: str | None = None
        """Reason to stop that :meth:`stopping` has returned; the next checkpoint stops for it."""

        self.loop.watch(self._note_blocked)

    def run_checkpoint(self) -> None:
        """Ask the stop sources, then save if a save is due: the slow part of a checkpoint.

        :raises Interrupt: if the job has to stop here.
        """
        now = self.clock()
        look = self._begin_look(now)
        if look is Look.NOTHING:
            return
        if self._durability.transactional:
            self.commit()
            now = self.clock()
        self._ask_after_commit(look, now)
        if self._is_save_due(now):
            if not self._save_if_possible():
                self._hold()
            self._ask_if_woken()
        self._rest(now)

    async def run_checkpoint_async(self) -> None:
        """Run a checkpoint like :meth:`run_checkpoint`, but let other tasks of the job run while it commits or holds.

        A save itself is a plain call on the loop: it takes as long as a few items, and nothing changes the progress
        while it is written.

        :raises Interrupt: if the job has to stop here.
        """
        now = self.clock()
        look = self._begin_look(now)
        if look is Look.NOTHING:
            return
        if self._durability.transactional:
            await self.commit_async()
            now = self.clock()
        self._ask_after_commit(look, now)
        if self._is_save_due(now):
            if not self._save_if_possible():
                await self._hold_async()
            self._ask_if_woken()
        self._rest(now)

    def _ask_after_commit(self, look: Look, now: float) -> None:
        if self.job.in_transaction():
            raise self._open_transaction()
        if look is Look.ASK:
            self._ask(now)

    async def complete_async(self, step: str) -> None:
        """Complete a step as :meth:`complete` does; the session may be an ``AsyncSession``."""
        if self.transactional and self.job.in_transaction():
            self._note_complete(step)
            await self.commit_async(always=True)
        else:
            self.complete(step)

    async def stopping(self) -> str:
        """Wait until the job has to stop, and return the reason; the next checkpoint then stops it."""
        import asyncio  # noqa: PLC0415 - only a coroutine of a job comes here

        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        self.loop.add_waiter(wake)
        try:
            while True:
                changed.clear()
                now = self.clock()
                found = self._pending_reason = self._reason or self._find_reason(now)
                if found is not None:
                    self.wake()
                    return found
                again_s = min(self._interval, self._deadline - now)
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), max(again_s, SHORTEST))
        finally:
            self.loop.remove_waiter(wake)

    def wake(self) -> None:
        """Make the next checkpoint ask the stop sources; safe in signal handlers and other threads."""
        self._woken = True  # must be first: _rest() reads it after writing the other one
        self.progress.check_at = NOW
        self.loop.wake()

    def interrupt(self, reason: str) -> None:
        """Stop the job here.

        :raises Interrupt: always.
        """
        # The reason comes from user code, and it is stored.
        self._reason = reason if isinstance(reason, str) else str(reason)
        self.wake()
        self._tells_later = self.window is not None
        if not self._tells_later:
            self._emit_interrupted(self._reason)
        raise Interrupt(self._reason)

    def refuse_swallowed(self) -> None:
        """Refuse to go on where the work ended although it was interrupted.

        :raises InterruptSwallowed: if the job caught the interruption.
        """
        if self._reason is not None:
            raise InterruptSwallowed(
                f"{self._name} was interrupted ({self._reason}) but caught it and continued; catch "
                "Exception instead of BaseException, or raise it again"
            )

    @property
    def durability(self) -> Durability:
        """Durability of this execution."""
        return self._durability

    # Queries while several items are in progress.

    @property
    def look_in_s(self) -> float:
        """Seconds until the next check of the stop sources."""
        return max(SHORTEST, self._look_at - self.clock())

    @property
    def is_look_due(self) -> bool:
        """True if the stop sources have to be asked now."""
        return self._woken or self.clock() >= self._look_at

    @property
    def superseded(self) -> bool:
        """True if another execution has claimed the job."""
        return self._superseded

    def has_to_stop(self) -> bool:
        """Return whether a stop source says stop, if the work ends for another reason."""
        self._pending_reason = self._pending_reason or self._reason or self._find_reason(self.clock())
        return self._pending_reason is not None

    def save_if_due(self) -> None:
        """Save if a save is due, while the last items in progress end.

        :raises Interrupt: if another execution has claimed the job since.
        """
        if self._is_save_due(self.clock()):
            self._save_if_possible()

    def current_record(self) -> Progress:
        """Return the progress as a save would write it now."""
        return self._bring_up_to_date()

    def note_item_commit(self, size: int) -> None:
        """Note that an item has committed its work with the record."""
        self._note_commit(size, (self.progress.done, self.progress.cursor))

    def end_window(self) -> None:
        """Keep the record of items done beyond the cursor: no item is in progress any more."""
        if self.window is not None:
            self.progress.beyond, self.window = self.window.beyond(), None

    def save_every_item(self) -> None:
        """Save after each item in this execution: the next crash then shows which item was the cause."""
        self._durability = self._durability.with_items(1)
        self._plan_save()
        self.wake()

    # Decisions without a write or a wait, used by both drivers.

    def _begin_look(self, now: float) -> Look:
        """Return the work of this checkpoint.

        :raises Interrupt: if the job swallowed an earlier interruption.
        """
        if self.holding:
            return Look.NOTHING  # in a transaction, whose end is a checkpoint
        if self._reason is not None:  # raise again until it reaches the boundary
            raise Interrupt(self._reason)
        if self._woken or now >= self._look_at:
            self._woken = False  # from here on wake() has an effect, even if its source was asked already
            return Look.ASK
        if self.progress.done >= self._save_at:
            return Look.SAVE
        self._clock_reads += 1
        self._rest(now)
        return Look.NOTHING

    def _open_transaction(self) -> CheckpointInTransaction:
        return CheckpointInTransaction(
            f"{self._name} has a checkpoint {self.description} inside an open transaction: its work may "
            "still be rolled back, but the cursor would say that it is done; commit before the checkpoint. "
            "If the job only reads: reading begins a transaction too, and so does an access to an object "
            "that a commit has expired; end it with session.rollback() or commit(), close the session, or "
            "create it with expire_on_commit=False, so that objects stay loaded after a commit"
        )

    def _ask(self, now: float) -> None:
        """Ask whether to stop, and decide when to ask again.

        :raises Interrupt: if the job has to stop.
        """
        if now - self._look_at > self.progress.longest_gap_s:
            self._note_gap(now - self._look_at)
        reason = self._pending_reason or self._find_reason(now)
        if reason is not None:
            self.interrupt(reason)
        self._ask_at = min(now + self._interval, self._deadline)

    def _ask_if_woken(self) -> None:
        """Ask again if a stop was requested while the job saved or held, because its next item may be long.

        :raises Interrupt: if the job has to stop.
        """
        if self._woken:
            self._woken = False
            self._ask(self.clock())

    def _find_reason(self, now: float) -> str | None:
        """Return the reason why the job has to stop, or None; a source that said stop is not asked again."""
        if now >= self._deadline:
            return "max_runtime"
        for source in self._sources:
            answer = source(self)
            if answer:
                return reason_of(answer, source)
        return None

    def _is_save_due(self, now: float) -> bool:
        tried_s = now - self._tried_at
        again = self._failing_since is not None and tried_s >= LOOK_SECONDS
        return self.progress.done >= self._save_at or tried_s >= self._durability.seconds or again

    def _rest(self, now: float) -> None:
        """Schedule the next check; use the ticker if a thread is worth its cost."""
        self._look_at = at = min(self._ask_at, self._tried_at + self._durability.seconds)
        if at != self._ticks_at and self._clock_reads >= WORTH_A_THREAD and at - now >= SHORTEST:
            ticker = self._ticker
            self._ticks_at = at if ticker is not None and ticker.wake_at(at) else math.nan
        self.progress.check_at = self._save_at if at == self._ticks_at else NOW
        if self._woken:  # while this ran
            self.progress.check_at = NOW

    # Writes and waits.

    def _save_if_possible(self) -> bool:
        """Save; while the store is unreachable the job continues, until too much of its work is unsaved.

        :return: False if the job has to hold, because too much is unsaved. :raises Interrupt: if the job has to stop.
        """
        try:
            self.save_on_the_way()
        except ProgressUnavailable as error:
            self._tried_at = self.clock()
            self._plan_save()
            self._note_failed_save(error)
            limit, since = read_seconds(self.job, "max_unsaved"), self._failing_since
            # The clock is read once more: with a limit of 0 the first save that fails holds the job.
            return limit is None or since is None or self.clock() - since < limit
        return True

    def _hold(self) -> None:
        """Wait at this checkpoint until the progress is saved or the job has to stop.

        Only the save writes here. Crash while the job holds: the next execution continues from the latest save
        and repeats later work.

        :raises Interrupt: if the job has to stop. The work since the latest save is saved at the end of the execution,
            or repeated.
        """
        while self._failing_since is not None:
            time.sleep(HOLD_SECONDS)
            self._try_again()

    async def _hold_async(self) -> None:
        """Wait like :meth:`_hold`, but let other tasks of the job run."""
        import asyncio  # noqa: PLC0415 - only a coroutine of a job comes here

        while self._failing_since is not None:
            await asyncio.sleep(HOLD_SECONDS)
            self._try_again()

    def _try_again(self) -> None:
        self._look_at = now = self.clock()
        self._ask(now)
        with suppress(ProgressUnavailable):
            self.save_on_the_way()

    def _emit_interrupted(self, reason: str) -> None:
        events.emit(events.JobInterrupted(self.job_id, self._name, reason, self.description, self._duration))

    def _note_gap(self, seconds: float) -> None:
        """Warn that a stop would have waited longer than the grace period; once for each new maximum."""
        grace = read_seconds(self.job, "grace_period") or 0.0
        if grace < seconds < math.inf:
            self.progress.longest_gap_s = seconds
            events.emit(events.CheckpointLate(self.job_id, self._name, seconds, grace, self.description))

    def _note_blocked(self, seconds: float) -> None:
        grace = read_seconds(self.job, "grace_period") or 0.0
        if seconds > grace:
            events.emit(events.LoopBlocked(self.job_id, self._name, seconds, grace, self.description))

    @property
    def _deadline(self) -> float:
        limit = read_seconds(self.job, "max_runtime")
        return self._started_at + min(overrides.longest_runtime, math.inf if limit is None else limit)

    def _attach(self) -> None:
        if self.clock is time.monotonic:
            self._ticker = Ticker(self.wake)
        for source in self._sources:
            if hasattr(source, "attach"):
                source.attach(self.wake)

    def _detach(self) -> None:
        if self._ticker is not None:
            self._ticker.close()
        for source in self._sources:
            if hasattr(source, "detach"):
                source.detach(self.wake)
