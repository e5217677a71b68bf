"""Runs an explored job on a queue with tickets: a broker in memory, and one delivery at a time in this process.

Between two deliveries it simulates the other processes. An unacknowledged message is delivered again. If
there is none, the lease of the job expires, and a sweep sends it.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from harness.errors import UsageError
from harness.explore.crash import current, living
from harness.explore.messages import Messages
from harness.explore.queued import QueuedTarget
from harness.explore.redis_tables import EXPLORED
from harness.job import find
from harness.queues import keys
from harness.queues.holding import Held
from harness.queues.periodic import SETTING

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.explore.external_state import ExternalState
    from harness.explore.resources import Resource
    from harness.explore.versions import Versions
    from harness.queues.ticketed import Queue
    from harness.stops import Flag

QUEUE = "explored"


class NoLeases(Held):
    """Replacement of the thread that renews leases, because the explorer decides when a lease expires."""

    def add(self, job_id: str, owner: str, lost: Flag | None = None, owns: Callable[[], bool] = bool) -> None:
        """Renew none."""

    def remove(self, job_id: str, owner: str) -> None:
        """Renew none."""

    def forget(self, job_id: str, owner: str) -> None:
        """Renew none."""

    def close(self) -> None:
        """There is no thread."""


class TicketTarget(QueuedTarget):
    """Job or function on a queue with tickets.

    A plain function is a task whose message is acknowledged at its end: after a crash it is delivered again.

    :ivar queue: the queue. :ivar messages: the broker.
    """

    queue: Queue
    # The explorer decides when a lease expires, independent of the duration of a trial.
    settings: ClassVar[dict[str, str]] = {**QueuedTarget.settings, SETTING: str(24 * 3600)}

    def __init__(
        self, versions: Versions, args: tuple[Any, ...], kwargs: dict[str, Any], redis: str | None = None
    ) -> None:
        if redis is None and find_spec("lupa") is None:
            raise UsageError(
                "tickets are scripts of Redis, which fakeredis runs with lupa only; run pip install 'fakeredis[lua]', "
                "or name an empty Redis by redis= or --redis"
            )
        super().__init__(versions, redis)
        self.job_id = f"{EXPLORED.decode()}{uuid4()}"
        self.messages = Messages(QUEUE)
        self._call = args, kwargs
        self._install()
        self.queue.held = NoLeases(self.queue.tickets)
        self._enqueue()

    @property
    def places(self) -> dict[str, Resource]:
        """The broker."""
        return {"messages": self.messages}

    def attempt(self, external: ExternalState, *, deployed: bool = False) -> bool:
        """Deliver one message of the job; return whether the job is over."""
        del external
        simulated = current()
        with living(None):
            message = self._next()
        if message is None:
            return True
        with living(simulated), self.versions.deployed(deployed), self._set():
            error = self._deliver(message)
        with living(None):
            if error is not None and not (simulated and simulated.dead):
                raise error
            if not self.documented:
                return error is None
            ticket = self.queue.tickets.read(self.job_id)
            return ticket.get("state") == "over" and ticket.get("outcome") != "failed"

    def close(self) -> None:
        """Close the queue, and leave the Redis empty."""
        self.queue.close()
        super().close()

    @abstractmethod
    def _install(self) -> None:
        """Create the queue with :attr:`messages` as its broker."""

    @abstractmethod
    def _enqueue(self) -> None:
        """Enqueue the job under its id; a failed one continues."""

    @abstractmethod
    def _id_of(self, message: Any) -> str:
        """Return the id of the job in a message."""

    @abstractmethod
    def _deliver(self, message: Any) -> Exception | None:
        """Let a worker process a message and acknowledge it; return why the job failed, if it did."""

    def _next(self) -> Any:
        """Return the message to deliver next; None if the job is over."""
        own = self._own()
        if not own and self.documented:
            ticket = self.queue.tickets.read(self.job_id)
            if ticket.get("state") == "over":
                if ticket.get("outcome") != "failed":
                    return None
                self._enqueue()
            else:  # every lease expires, and a sweep then finds the job due
                self._connection.zadd(keys.due(self.queue.kind), {self.job_id: 0}, xx=True)
                sending = self.queue.tickets.take(self.job_id)
                if sending is not None:
                    self.queue.resend(sending)
            own = self._own()
        return own[0] if own else None

    def _own(self) -> list[Any]:
        return [each for each in self.messages.waiting() if self._id_of(each) == self.job_id]


def plain(path: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Call a function by its path, in a task."""
    find(path)(*args, **json.loads(json.dumps(kwargs)))
