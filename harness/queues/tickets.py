"""Tickets: one record in Redis for each job of a queue that has no registries of its own, such as Celery or Dramatiq.

The broker's message only wakes a worker; the ticket says whether the job waits, runs, is parked or is over.
Each time the job is sent, the ticket's number increases, and the message has this number. A message with
another number is out of date and is dropped. So it does no harm if a broker delivers a message again after a
crash, however late.

A ticket has a time when it is *due*, in the sorted set ``harness:due:<kind>``. A sweep sends the job of a due ticket
again:

* ``sending``: the sender has not confirmed that the broker has the message;
* ``reserved``: the lease of the worker that has received the message is over, and the job has not started;
* ``running``: the lease of the process that runs the job is over: it crashed;
* ``waiting``: the job has waited for long, and the broker may have lost the message. A copy is sent under the same
  number: of two copies, the first to arrive counts, and the job keeps its place in the queue.

Each operation is one script, which Redis runs as a whole. Crash before it: nothing has changed. Crash after it: all is
stored, and what the process wanted to do next is done by the sweep once the ticket is due. Lost answer: the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from harness.boundary.decoding import plain_text
from harness.errors import CorruptProgress
from harness.queues import keys
from harness.queues.connections import check_connection
from harness.queues.periodic import lease_seconds
from harness.queues.ticket_scripts import OVER_KEPT, SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from harness.progress import Progress

log = logging.getLogger("harness.queues")

OVER_TTL = 7 * 24 * 3600
"""TTL of a ticket after the end of its job, in seconds, so that a late message is recognized."""

LONGEST_STRAY_SECONDS = 3600
"""Maximum time between two copies of a waiting message."""

OUTCOMES = ("completed", "failed", "cancelled")
"""Outcomes of a job that is over."""

BAD_SECONDS = 60
"""Seconds until a sweep checks an unusable ticket again."""

BATCH = 100
"""Number of due tickets that a sweep reads in one batch."""


@dataclass(frozen=True)
class Sending:
    """Message to send.

    :ivar message: text that the adapter stored for it. :ivar n: its number. :ivar delay: seconds until the
        job may start. :ivar queue: name of the queue; None for the one in the message. :ivar retries: number
        of retries after an error.
    """

    job_id: str
    n: int
    message: str
    delay: float = 0.0
    queue: str | None = None
    retries: int = 0


@dataclass(frozen=True)
class Opened:
    """Result of :meth:`Tickets.open`: the message's number, 0 if it joins an unfinished job."""

    n: int
    round: str
    digest: str
    state: str


@dataclass(frozen=True)
class Start:
    """Facts that let a claim start the execution in the same round trip: the process knows the job's code.

    :ivar run_id: job whose requests hold for this one too.
    :ivar progress: key, text and TTL of new progress; None if the progress is not kept next to the tickets.
    """

    run_id: str
    progress: tuple[str, str, int] | None = None


@dataclass(frozen=True)
class Started:
    """Data that such a claim has found.

    :ivar time: of the server. :ivar heartbeat: of an execution that did not end. :ivar controls: requests to the job.
    :ivar progress: as it was stored; None if there was none, and the new one is stored now.
    :ivar usable: False if *progress* is not to be used: it is kept elsewhere, or its key has another type.
    """

    time: float
    heartbeat: bytes | None
    controls: tuple[bytes | None, ...]
    progress: bytes | None
    usable: bool


@dataclass(frozen=True)
class Claimed:
    """Ticket of a job that this process may run now.

    :ivar owner: mark of this claim. :ivar n: number of the ticket. :ivar executions: of this job since it was
        enqueued. :ivar unknown: how many workers in a row did not know it. :ivar starts: claims since the job's code
        was last reached.
    :ivar started: what the claim has found, if it has started the execution.
    :ivar progress: for :meth:`harness.stores.redis.RedisStore.taking`: what was stored, or is stored by this claim.
    """

    job_id: str
    owner: str
    round: str
    unknown: int
    executions: int
    starts: int
    n: int
    started: Started | None = None
    progress: Progress | bytes | None = None


class Tickets:
    """The tickets of one kind of queue.

    :param kind: such as ``celery``. :param stray_seconds: time after which a waiting message is sent again.
    """

    def __init__(self, connection: Redis, kind: str, *, stray_seconds: float = 300.0) -> None:
        check_connection(connection)
        self.connection, self.kind, self._stray = connection, kind, stray_seconds
        self._due = keys.due(kind)
        self._scripts = {name: connection.register_script(text) for name, text in SCRIPTS.items()}

    def open(
        self,
        job_id: str,
        round_id: str,
        digest: str,
        message: str,
        delay: float = 0.0,
        *,
        at_once: bool = False,
        unused: bool = False,
    ) -> Opened:
        """Make the ticket of a job that is about to be sent for the first time, or join the one that is not over.

        :param at_once: as for :meth:`resume`. :param unused: make no ticket if there is one, even if it is over.
        """
        made, n, round_id, digest, state = self._run(
            "open", job_id, round_id, digest, message, 0 if at_once else lease_seconds(), delay, self.kind,
            int(unused), more=self._of_round(job_id),
        )  # fmt: skip
        return Opened(int(n) if made else 0, _text(round_id), _text(digest), _text(state))

    def sent(self, job_id: str, n: int) -> None:
        """Record that the broker has the message."""
        self._run("sent", job_id, n, self._stray)

    def received(self, messages: Sequence[tuple[str, int, str]]) -> list[bool]:
        """Reserve jobs for a worker that has their messages: id, number, and mark of the lease.

        False for a message that is out of date, and for a job that has started.
        """
        if len(messages) == 1:
            return [bool(self._run("received", *messages[0], lease_seconds()))]
        script = self._scripts["received"]
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id, n, owner in messages:
                script([keys.ticket(job_id), self._due], [job_id, n, owner, lease_seconds()], client=pipeline)
            return [bool(each) for each in pipeline.execute()]

    def claim(
        self,
        job_id: str,
        n: int,
        owner: str,
        *,
        round_id: str = "",
        digest: str = "",
        message: str = "",
        start: Start | None = None,
    ) -> Claimed | str:
        """Claim the job for this process, or return why it may not run.

        ``stale``, ``busy`` or ``over``; ``none``, if it has no ticket and no *message* is given to make one of; or
        ``other``: Redis has lost the ticket, and another job was enqueued under the id since.

        With *start* the script also does what :meth:`begun` and the claim of new progress do. Crash after it: it
        counts as a crash of the job. Lost answer: a second claim with the same *owner* finds its own claim.

        :param n: number in the message; 0 if a program that does not know this package has sent it, -1 if it joins
            the job that was there: it claims none that has a ticket.
        """
        more, (key, text, ttl) = [keys.over(self.kind, "failed")], ("", "", 0)
        if start is not None:
            more += [keys.heartbeat(job_id), keys.control(job_id), keys.control(start.run_id)]
            if start.progress is not None:
                key, text, ttl = start.progress
                more.append(key)
        answer = self._run(
            "claim", job_id, n, owner, lease_seconds(), round_id, digest, message, self.kind, text, ttl, more=more,
        )  # fmt: skip
        if _text(answer[0]) != "ok":
            return _text(answer[0])
        stored, unknown, executions, starts, number, *found = answer[1:]
        started = None if start is None else _started(found, text)
        return Claimed(
            job_id, owner, _text(stored), int(unknown), int(executions), int(starts), int(number), started
        )

    def begun(self, claimed: Claimed) -> None:
        """Record that the job's code was reached: a crash from now on is counted by its progress."""
        with self.connection.pipeline(transaction=True) as pipeline:
            pipeline.hset(keys.ticket(claimed.job_id), "starts", 0)
            pipeline.hincrby(keys.ticket(claimed.job_id), "executions", 1)
            pipeline.execute()

    def renew(self, held: Sequence[tuple[str, str]]) -> set[str]:
        """Renew the leases of pairs of job id and owner, and return the owners whose lease is lost."""
        arguments = [part for job_id, owner in held for part in (keys.ticket(job_id), job_id, owner)]
        lost = self._scripts["renew"](keys=[self._due, self._due], args=[lease_seconds(), *arguments])
        return {_text(each) for each in lost}

    def owned(self, claimed: Claimed) -> bool:
        """Return whether the claim still holds."""
        owner, state = self.connection.hmget(keys.ticket(claimed.job_id), "owner", "state")
        return owner is not None and _text(owner) == claimed.owner and state == b"running"

    def restored(self, claimed: Claimed, digest: str, message: str) -> bool:
        """Return whether the claim still holds; restore its ticket if Redis has lost it.

        Crash after it, or a lost answer: the lease expires, and the sweep sends the message.
        """
        answer = self._run(
            "owned", claimed.job_id, claimed.owner, lease_seconds(), claimed.n, claimed.round, digest, message,
            self.kind,
        )  # fmt: skip
        if answer == 2:
            log.warning("job %s: Redis has lost its ticket; its process has made it again", claimed.job_id)
        return bool(answer)

    def requeue(
        self,
        claimed: Claimed,
        *,
        delay: float = 0.0,
        queue: str | None = None,
        known: bool = True,
        retried: bool = False,
    ) -> tuple[Sending, int] | None:
        """Return the job, with the message to send and the number of workers in a row that did not know the job.

        None if the claim no longer holds. *retried* counts a retry, in the same script.
        """
        answer = self._run(
            "requeue", claimed.job_id, claimed.owner, lease_seconds() + delay, delay, queue or "", int(known),
            int(retried),
        )  # fmt: skip
        return (self._sending(claimed.job_id, int(answer[0])), int(answer[1])) if answer else None

    def park(self, claimed: Claimed) -> bool:
        """Keep the job without a message until it is resumed; return whether the claim held."""
        return bool(self._run("park", claimed.job_id, claimed.owner))

    def close(self, job_id: str, outcome: str, owner: str = "") -> bool:
        """Record that the job is over; return whether it was unfinished, and owned by *owner* if one is given."""
        more = (keys.over(self.kind, outcome),)
        return bool(self._run("close", job_id, owner, outcome, OVER_TTL, OVER_KEPT, more=more))

    def resume(self, job_id: str, *, at_once: bool = False, cancelled: bool = False) -> Sending | None:
        """Return the message of a parked job, which must be sent now; None if it is not parked.

        :param at_once: let the next sweep of a worker send it, for a caller without the broker.
        :param cancelled: whether it is sent to be cancelled: the request to do so is kept.
        """
        if not cancelled:
            self.connection.delete(keys.control(job_id))
        answer = self._run("resume", job_id, 0 if at_once else lease_seconds())
        return self._sending(job_id, int(answer[0])) if answer else None

    def reopen(
        self, job_id: str, *, completed: bool = False, at_once: bool = False, message: str = "", n: str = ""
    ) -> Sending | None:
        """Return the message of a job that is over, which must be sent now; None if it is not over.

        It is the same enqueue, so the same round. Requests to it are forgotten, and it has all its retries again.

        :param completed: whether a job that is completed may be done again. :param at_once: as for :meth:`resume`.
        :param message: stored instead of the one there, if *n* is still the ticket's number; else this returns None.
        """
        lease = 0 if at_once else lease_seconds()
        answer = self._run("reopen", job_id, lease, int(completed), message, n, more=self._of_round(job_id))
        return self._sending(job_id, int(answer[0])) if answer else None

    def _of_round(self, job_id: str) -> tuple[str, ...]:
        """Return the keys of requests, and of jobs that are over: what a new start of a job forgets."""
        return (keys.stop(job_id), keys.control(job_id), *(keys.over(self.kind, each) for each in OUTCOMES))

    def take(self, job_id: str, owner: str = "") -> Sending | None:
        """Return the message of a job that is due, or whose *owner* has crashed; it must be sent now."""
        answer = self._run("take", job_id, lease_seconds(), owner, self._stray, LONGEST_STRAY_SECONDS)
        return self._sending(job_id, int(answer[0])) if answer else None

    def put_off(self, job_id: str) -> None:
        """Let a later sweep check a job with an unusable ticket, so that it does not block others."""
        now = server_time(self.connection)
        self.connection.zadd(self._due, {job_id: now + BAD_SECONDS}, xx=True)

    def due(self) -> list[str]:
        """Return the ids of jobs that are due, at most :data:`BATCH`."""
        seconds, micros = self.connection.time()
        found: list[Any] = self.connection.zrangebyscore(self._due, "-inf", seconds + micros / 1e6, 0, BATCH)
        return [_text(each) for each in found]

    def held_now(self) -> list[tuple[str, str]]:
        """Return the ids and owners of jobs with a valid lease, at most :data:`BATCH`."""
        now = server_time(self.connection)
        found: list[Any] = self.connection.zrangebyscore(self._due, now, now + lease_seconds() + 1, 0, BATCH)
        if not found:
            return []
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id in (job_ids := [_text(each) for each in found]):
                pipeline.hget(keys.ticket(job_id), "owner")
            marks = pipeline.execute()
        return [(job_id, _text(mark)) for job_id, mark in zip(job_ids, marks, strict=True) if mark]

    def open_jobs(self) -> list[str]:
        """Return the ids of all jobs that are not over."""
        found: list[Any] = self.connection.zrange(self._due, 0, -1)
        return [_text(each) for each in found]

    def read(self, job_id: str) -> dict[str, str]:
        """Return the fields of a ticket; an empty dict if there is none.

        :raises CorruptProgress: if this package does not write such tickets.
        """
        what = f"the ticket of job {job_id}"
        try:
            fields: dict[Any, Any] = self.connection.hgetall(keys.ticket(job_id))
        except ResponseError as error:
            raise CorruptProgress(f"{what} cannot be read: {error}") from error
        return {_text(name): plain_text(value, what) or "" for name, value in fields.items()}

    def replace_message(self, job_id: str, message: str) -> None:
        """Store another form of a job's message. Crash before it: the sweep sends the earlier one."""
        self.connection.hset(keys.ticket(job_id), "message", message)

    def _sending(self, job_id: str, n: int) -> Sending:
        message, eta, queue, retries = self.connection.hmget(
            keys.ticket(job_id), "message", "eta", "queue", "retries"
        )
        delay = 0.0
        if eta:
            delay = max(0.0, float(eta) - server_time(self.connection))
        return Sending(
            job_id, n, _text(message or b""), delay, _text(queue) if queue else None, int(retries or 0)
        )

    def _run(self, name: str, job_id: str, *arguments: Any, more: Sequence[str] = ()) -> Any:
        return self._scripts[name](keys=[keys.ticket(job_id), self._due, *more], args=[job_id, *arguments])


def _started(found: Sequence[Any], text: str) -> Started:
    """Read the part of a claim's answer that starts the execution; a number stands for a key of another type."""
    seconds, micros, heartbeat, *controls = found
    controls, progress = controls[:2], controls[2:]
    stored = progress[0] if progress else None
    if stored == text.encode():  # stored by this claim, whose answer was lost
        stored = None
    return Started(
        int(seconds) + int(micros) / 1e6, None if isinstance(heartbeat, int) else heartbeat,
        tuple(None if isinstance(each, int) else each for each in controls), stored,
        usable=bool(progress) and not isinstance(stored, int),
    )  # fmt: skip


def server_time(connection: Redis) -> float:
    """Return the time of the Redis server, in seconds."""
    seconds, micros = connection.time()
    return float(seconds + micros / 1e6)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
