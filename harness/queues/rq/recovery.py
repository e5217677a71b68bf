"""Recovery: requeue jobs whose worker crashed, with their progress.

Each worker of this package sweeps; ``harness recover`` does the same without one. A short lock lets one process sweep
at a time, for all queues of that Redis. A sweep finds

* an execution whose lease has expired (see :mod:`harness.queues.rq.leases`), or whose processes were on this machine
  and are gone (:mod:`harness.queues.owners`);
* an execution without a lease, such as one that crashed while it started, or that of RQ's own worker: the first sweep
  that sees it gives it a lease, which is never renewed;
* a job that was taken out of its queue and never started: it is in RQ's intermediate queue, and gets a lease the same
  way. (RQ's own worker of several queues does not use that list: a SIGKILL while it takes a job loses the job.)

Executions count the crashes of a job (``Job.max_crashes``). Only crashes before the job's code was reached are counted
here, up to the same default.

Jobs are requeued in batches (:mod:`harness.queues.rq.returns`), so the time is proportional to their number. A sweep
holds a lock for one interval, renewed with each batch. If its holder crashes, another worker sweeps an interval later.

A sweep also requeues jobs that are nowhere (:mod:`harness.queues.rq.strays`) and enqueues those whose delay is over
(:mod:`harness.queues.rq.delayed`). Plain jobs are left to RQ. An entry, a queue or a key that holds other data than it
should is logged once, skipped, and left as it is: the others go on.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError
from rq import Queue

from harness.queues import owners
from harness.queues.connections import check_connection
from harness.queues.periodic import PeriodicThread, lease_seconds, recover_seconds
from harness.queues.rq import keys, strays
from harness.queues.rq.delayed import DueLooks, enqueue_due
from harness.queues.rq.entries import (
    ask,
    complaints,
    is_wrong_data,
    queues_of,
    set_aside,
    split,
    text_of,
    usable,
)
from harness.queues.rq.keys import LEASES, OWNERS, SWEEP_LOCK
from harness.queues.rq.places import DEQUEUED
from harness.queues.rq.returns import Dead, forget, put_back, put_back_batch, put_back_dequeued
from harness.queues.turns import give_way

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from harness.stops import Clock

__all__ = ["Sweeper", "forget", "keep_recovering", "put_back", "put_back_dequeued", "recover"]

TURNS_TO_STRAYS = 6
"""Number of sweeps of which one also checks for jobs in no place; every sweep does if there are many."""

LOOKS_TO_OPEN, LOOKS_TO_ENDED = 3, 12
"""Number of quiet checks of which one also reads open jobs, new queues and ended jobs."""

BATCH = 100
"""Number of jobs that one transaction requeues."""

TURN_JOBS, START_JOBS = 5_000, 100
"""Maximum numbers of jobs that a sweep requeues: in a thread, and before a worker's first job."""

PROBED = 100
"""Number of keys that one command reads."""

log = logging.getLogger("harness.rq")


def recover(connection: Redis) -> list[str]:
    """Sweep once, and return the ids of the requeued jobs.

    A later sweep requeues a job that had no lease: call it every few seconds, or :func:`keep_recovering`.
    """
    return Sweeper(connection).sweep()


def keep_recovering(connection: Redis, until: threading.Event) -> None:
    """Sweep until the event is set; an outage of Redis is logged, and the next sweep comes after it."""
    due = DueLooks(connection)
    sweeper = Sweeper(connection).beat(at_once=True)
    due.start()
    sweeper.start()
    try:
        until.wait()
    finally:
        due.close()
        sweeper.close()


@dataclass(frozen=True)
class _Seen:
    """Results of one read of Redis.

    :ivar now: the server's time. :ivar leases: expiry of each lease, by entry, which may be any bytes. :ivar
        started: executions with their queue and the time at which RQ abandons them. :ivar dequeued: jobs
        without an execution. :ivar owners: processes of each execution. :ivar complete: whether all
        registries were readable.
    """

    now: float
    leases: dict[bytes, float]
    owners: dict[bytes, bytes]
    started: dict[str, tuple[Queue, float]]
    dequeued: dict[str, Queue]
    complete: bool

    def lease(self, entry: str) -> float | None:
        """Return the expiry of an execution's lease; None if it has none."""
        return self.leases.get(entry.encode())


class Sweeper:
    """Finds crashed executions and requeues their jobs.

    :param connection: connection to RQ's Redis; all its queues are checked. :param clock: monotonic seconds.
        :ivar interval: maximum seconds between two sweeps.
    """

    def __init__(self, connection: Redis, *, clock: Clock = time.monotonic) -> None:
        check_connection(connection)
        self._connection, self._clock = connection, clock
        self.interval = recover_seconds() / 6
        self._lock_ms = max(1, int(self.interval * 1000) - 1)
        # Quiet checks are two intervals apart, and so may be the first check of an execution without a lease.
        self._first_lease = lease_seconds() - 2 * self.interval
        self._turned, self._skips = clock(), 0
        self._turns_to_strays = 0
        self._rests, self._looks, self._lost = 0, 0, False
        self._queues: list[Queue] | None = None
        self._bad: set[str] = set()
        self._beat: PeriodicThread | None = None
        self.more = False
        """True if the latest sweep left jobs for the next one."""

    def beat(self, *, at_once: bool = False) -> PeriodicThread:
        """Return a thread that sweeps, not started."""
        self._beat = PeriodicThread("harness-sweep", self.interval, self.turn, at_once=at_once)
        return self._beat

    def turn(self) -> bool:
        """Sweep if needed and if no other process just did; return whether to do it again immediately.

        While no key exists that could hold an execution, it sends one command in two intervals. An execution
        that starts after such a check has a lease longer than two intervals, so its crash is still detected
        in time. During an outage of Redis, no lease could be renewed: afterwards live executions get two
        turns to do so.
        """
        if self._rests:
            self._rests -= 1
            return False
        try:
            return self._turn()
        except RedisError:
            self._lost = True
            raise

    def _turn(self) -> bool:
        quiet = self._quiet()
        first = not quiet and self._connection.set(SWEEP_LOCK, "1", nx=True, px=self._lock_ms)
        before, self._turned = self._turned, self._clock()
        late = self._turned - before > 3 * self.interval
        # A late turn does not extend the pause: otherwise a machine with late turns would never recover a job.
        self._skips = 2 if self._lost or (late and not self._skips) else max(0, self._skips - 1)
        self._lost = False
        self._rests = 1 if quiet and not self._skips else 0
        if not first or self._skips:
            return False
        try:
            self.sweep(strays_too=self._turns_to_strays == 0, limit=TURN_JOBS)
        finally:
            self._turns_to_strays = (self._turns_to_strays or TURNS_TO_STRAYS) - 1
        return self.more

    def _quiet(self) -> bool:
        """Return whether no execution, no dequeued job, and no job due for a check can exist."""
        look, self._looks = self._looks, self._looks + 1
        names, complete = [LEASES], True
        if look % LOOKS_TO_OPEN == 0 or self._queues is None:
            self._queues, complete = queues_of(self._connection)
            # This key shows that workers of this package run; code that delays a job checks it.
            self._connection.set(keys.SWEEPING, "1", px=int(4 * LOOKS_TO_OPEN * self.interval * 1000) + 1)
            names += [keys.OPEN]
        if look % LOOKS_TO_ENDED == 0:
            names += [keys.ENDED]
        for queue in self._queues:
            names += _keys(queue)
        with self._connection.pipeline(transaction=False) as pipeline:
            for start in range(0, len(names), PROBED):
                pipeline.exists(*names[start : start + PROBED])
            quiet = complete and not any(ask(pipeline))
        if not quiet and keys.OPEN in names:
            self._turns_to_strays = 0
        return quiet

    def sweep(self, *, strays_too: bool = True, limit: int | None = None) -> list[str]:
        """Requeue the jobs of crashed executions, and return their ids; several processes may do so at the same time.

        :param strays_too: whether to check also for jobs in no place and for due jobs. :param limit: number
            of executions to handle; :attr:`more` says whether there are others.
        """
        self.more = False
        try:
            return self._sweep(strays_too=strays_too, limit=limit)
        except ResponseError as error:
            if not is_wrong_data(error):
                raise
            set_aside(self._connection)  # it was one of our keys: what else is read is guarded
            return self._sweep(strays_too=strays_too, limit=limit)

    def _sweep(self, *, strays_too: bool, limit: int | None) -> list[str]:
        seen = self._look()
        self._expire(seen)
        running: dict[str, list[str]] = {}
        for entry in seen.started:
            running.setdefault(entry.rpartition(":")[0], []).append(entry)
        back = []
        for batch in self._batches(seen, limit):
            back += self._put_back(batch, running, seen.now)
        for entry, queue in seen.dequeued.items():
            if (seen.lease(entry) or math.inf) < seen.now:
                back += self._guarded(Dead(entry, entry.rpartition(":")[0], queue), running)
        self._tidy(seen)
        if strays_too:
            busy = {*running, *(entry.rpartition(":")[0] for entry in seen.dequeued)}
            found, more = strays.find(self._connection, seen.now, busy)
            back += found
            self._turns_to_strays = 1 if more else self._turns_to_strays
            enqueue_due(self._connection)
        return back

    def _expire(self, seen: _Seen) -> None:
        """End the leases of executions whose processes were on this machine and are gone.

        Crash after it, or a lost answer: the lease has expired, and the next sweep requeues the job.
        """
        machine = owners.here()
        gone: dict[Any, float] = {
            entry: 0.0
            for entry, text in seen.owners.items()
            if machine is not None
            and 0 < seen.leases.get(entry, 0.0) < math.inf
            and owners.are_gone(text.decode(errors="replace"), machine)
        }
        if gone:
            self._connection.zadd(LEASES, gone, xx=True)
            seen.leases.update(gone)

    def _batches(self, seen: _Seen, limit: int | None) -> Iterator[list[Dead]]:
        """Yield crashed executions in batches, and renew the lock between them; bad entries come last."""
        dead = [
            Dead(entry, entry.rpartition(":")[0], queue)
            for entry, (queue, given_up) in seen.started.items()
            if _is_dead(seen.lease(entry), given_up, seen.now)
        ]
        dead.sort(key=lambda each: each.entry in self._bad)
        self.more = limit is not None and len(dead) > limit and dead[limit].entry not in self._bad
        for start in range(0, len(dead) if limit is None else min(limit, len(dead)), BATCH):
            if start:
                self._connection.set(SWEEP_LOCK, "1", px=self._lock_ms)
                give_way()
            if self._beat is not None and self._beat.closing:
                return
            yield dead[start : start + BATCH]

    def _look(self) -> _Seen:
        queues, complete = queues_of(self._connection)
        self._queues = queues
        with self._connection.pipeline(transaction=False) as pipeline:
            # Leases first: an execution with a lease was registered before, and is found below unless it has
            # ended.
            pipeline.time()
            pipeline.zrange(LEASES, 0, -1, withscores=True)
            pipeline.hgetall(OWNERS)
            (seconds, micros), leases, owners_of = pipeline.execute()
        started: dict[str, tuple[Queue, float]] = {}
        waiting: list[tuple[Queue, bytes]] = []
        for queue, entries, dequeued in self._registries(queues):
            readable = usable("registry of started jobs of queue", queue.name, entries)
            complete &= usable("list of dequeued jobs of queue", queue.name, dequeued) and readable
            for entry, score in entries if isinstance(entries, list) else ():
                if split(entry) is None:
                    complaints.say("started execution", entry, "its name must be <job id>:<execution id>")
                else:
                    started[entry.decode()] = queue, score
            waiting += [(queue, each) for each in (dequeued if isinstance(dequeued, list) else ())]
        running = {entry.rpartition(":")[0] for entry in started}
        found = {}
        for queue, each in waiting:
            job_id = text_of(each)
            if job_id is None or ":" in job_id or not job_id:
                complaints.say("dequeued job", each, "it must be the id of a job")
            elif job_id not in running:
                found[f"{job_id}:{DEQUEUED}"] = queue
        return _Seen(seconds + micros / 1e6, dict(leases), owners_of, started, found, complete)

    def _registries(self, queues: list[Queue]) -> Iterator[tuple[Queue, Any, Any]]:
        """Yield the queues that have executions or dequeued jobs, with both; empty queues cost little."""
        groups = [queues[start : start + PROBED // 2] for start in range(0, len(queues), PROBED // 2)]
        if len(queues) > 10:
            with self._connection.pipeline(transaction=False) as pipeline:
                for group in groups:
                    pipeline.exists(*(key for each in group for key in _keys(each)))
                groups = [group for group, some in zip(groups, ask(pipeline), strict=True) if some]
        for group in groups:
            with self._connection.pipeline(transaction=False) as pipeline:
                for queue in group:
                    pipeline.zrange(queue.started_job_registry.key, 0, -1, withscores=True)
                    pipeline.lrange(queue.intermediate_queue_key, 0, -1)
                answers = ask(pipeline)
            yield from zip(group, answers[::2], answers[1::2], strict=True)

    def _put_back(self, batch: list[Dead], running: dict[str, list[str]], now: float) -> list[str]:
        """Requeue a batch, and the rest of it one by one."""
        done = put_back_batch(self._connection, batch, running, now)
        for job_id in done.back:
            log.warning("job %s: its worker crashed; it is back in its queue", job_id)
        self._remember([each.entry for each in done.bad])
        if done.others:  # not to be looked at again
            self._connection.zadd(LEASES, {each.entry: math.inf for each in done.others}, xx=True)
        return [*done.back, *(job_id for each in done.single for job_id in self._guarded(each, running))]

    def _guarded(self, dead: Dead, running: dict[str, list[str]]) -> list[str]:
        """Requeue one job; log an unreadable one and do not change it."""
        connection, queue = self._connection, dead.queue
        try:
            ours = strays.ours_or_gone(connection, dead.job_id)
            if ours is False:
                connection.zadd(LEASES, {dead.entry: math.inf}, xx=True)  # not to be looked at again
            if not ours:
                self._remember([dead.entry] if ours is None else [])
                return []
            if dead.entry.endswith(f":{DEQUEUED}"):
                back = put_back_dequeued(connection, queue, dead.job_id)
            else:
                back = put_back(
                    connection, queue, dead.entry, died=True, running=running.get(dead.job_id, ())
                )
        except Exception as error:
            if isinstance(error, RedisError) and not is_wrong_data(error):
                raise
            complaints.say("job", dead.job_id, error)
            self._remember([dead.entry])
            return []
        if back:
            log.warning("job %s: its worker crashed; it is back in queue %s", dead.job_id, queue.name)
        return [dead.job_id] if back else []

    def _remember(self, entries: list[str]) -> None:
        """Sort unusable entries last from now on; a worker of another release may read them."""
        if len(self._bad) > 10 * TURN_JOBS:
            self._bad.clear()
        self._bad.update(entries)

    def _tidy(self, seen: _Seen) -> None:
        """Give a lease to executions without one, and remove the leases of ended executions."""
        known = {entry.encode() for entry in (*seen.started, *seen.dequeued)}
        new: dict[Any, float] = {
            entry: seen.now + self._first_lease for entry in known if entry not in seen.leases
        }
        ended = (
            [entry for entry in {*seen.leases, *seen.owners} if entry not in known] if seen.complete else []
        )
        if not new and not ended:
            return
        with self._connection.pipeline(transaction=False) as pipeline:
            if new:
                pipeline.zadd(LEASES, new, nx=True)
            if ended:
                pipeline.zrem(LEASES, *ended)
                pipeline.hdel(OWNERS, *ended)
            pipeline.execute()


def _is_dead(lease: float | None, given_up: float, now: float) -> bool:
    """Return whether an execution has crashed; without a lease, before RQ's maintenance would fail its job."""
    return 0 <= given_up < now if lease is None else lease < now


def _keys(queue: Queue) -> tuple[str, str]:
    return queue.started_job_registry.key, queue.intermediate_queue_key
