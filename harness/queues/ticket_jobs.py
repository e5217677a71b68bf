"""Jobs of Celery and Dramatiq described by their tickets, for commands, the monitor and the page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.queues import keys, owners, requests, ticket_requeuing
from harness.queues.holding import pid_of
from harness.queues.rewinding import place_of
from harness.queues.tickets import Tickets
from harness.stores.redis import RedisStore

if TYPE_CHECKING:
    from redis import Redis

KINDS = {"celery": "Celery", "dramatiq": "Dramatiq"}
"""Kinds of queues with tickets, and their names."""


class TicketJob:
    """Job of Celery or Dramatiq, found by its ticket.

    :ivar state: of the ticket. :ivar description: class and arguments. :ivar queue: name of its queue.
    :ivar unknown: how many workers in a row did not know its class or steps.
    """

    def __init__(self, connection: Redis, job_id: str, fields: dict[str, str]) -> None:
        self.id, self.state = job_id, fields.get("state", "")
        self.outcome, self.kind = fields.get("outcome", ""), fields.get("kind", "")
        self.tickets = Tickets(connection, self.kind)
        self.description, self.queue = described(fields)
        self.unknown = int(fields.get("unknown", "0")) if fields.get("unknown", "0").isdecimal() else 0
        self._owner = fields.get("owner", "")

    def ask(self, request: str) -> str:
        """Ask the job to ``pause``, ``resume`` or ``cancel``, and return a message.

        :raises UsageError: if the job is over.
        """
        if request != "resume" and self.state == "over":
            raise UsageError(f"job {self.id} is over: {self.outcome}")
        connection = self.tickets.connection
        if request == "resume":
            if self.tickets.resume(self.id, at_once=True) is None:
                return f"job {self.id} was not paused; a pending pause request was cancelled"
            return f"job {self.id} resumes when a worker of {self.kind} has read it"
        if request == "pause":
            requests.pause(connection, self.id)
            return f"job {self.id} will pause at its next checkpoint, or before it starts"
        requests.cancel(connection, self.id)
        self.tickets.resume(
            self.id, at_once=True, cancelled=True
        )  # a paused job has no message to be cancelled by
        return f"job {self.id} will be cancelled at its next checkpoint, or before it starts"

    def interrupt(self, reason: str) -> str:
        """Ask the job to stop once, and return a message.

        :raises UsageError: if it is not running.
        """
        self._at_work()
        requests.request_stop(self.tickets.connection, self.id, reason)
        return f"asked job {self.id} to stop at its next checkpoint ({reason})"

    def requeue(self) -> str:
        """Requeue the job if it failed or was cancelled, and return what will happen.

        :raises UsageError: if it is not over, or has finished.
        """
        ticket_requeuing.requeue(self.tickets, self.id, RedisStore(self.tickets.connection), at_once=True)
        return f"job {self.id} is back in queue {self.queue}"

    def rewind(self, place: str) -> str:
        """Requeue the job to do a part of it again, and return what will happen.

        :param place: ``STEP``, ``STEP:CURSOR`` or ``:CURSOR``.
        :raises UsageError: if it is not over, or has not reached that place.
        """
        step, cursor = place_of(place)
        store = RedisStore(self.tickets.connection)
        ticket_requeuing.rewind(self.tickets, self.id, store, step=step, cursor=cursor, at_once=True)
        return f"job {self.id} is back in queue {self.queue}, rewound to {place}"

    def fork(self, place: str, new_id: str | None) -> str:
        """Enqueue a new job that does a part of this one again, and return what will happen.

        :param place: as for :meth:`rewind`. :param new_id: id of the new job; by default a random one.
        :raises UsageError: as :meth:`rewind`, and if there is a job or progress under the new id.
        """
        step, cursor = place_of(place)
        store = RedisStore(self.tickets.connection)
        new = ticket_requeuing.fork(
            self.tickets, self.id, store, step=step, cursor=cursor, new_id=new_id, at_once=True
        ).job_id
        return f"job {new} is in queue {self.queue}, forked from {self.id} at {place}"

    def scale(self, instances: int) -> str:
        """Change the number of instances of a parallel job, and return what will happen.

        :raises UsageError: if it is none.
        """
        ticket_requeuing.scale(self.tickets, self.id, instances, RedisStore(self.tickets.connection))
        return f"job {self.id} goes on with {instances} instances"

    def pid(self) -> int:
        """Return the process of the job on this machine.

        :raises UsageError: if there is none here.
        """
        self._at_work()
        pid = pid_of(self._owner)
        if pid is None or self._owner.split(" ")[0] != (owners.here() or "-"):
            raise UsageError(
                f"job {self.id} is running on another machine; signals reach only processes of this machine"
            )
        return pid

    def _at_work(self) -> None:
        if self.state != "running":
            raise UsageError(f"job {self.id} is not running: {self.outcome or self.state}")


def ticket_of(connection: Redis, job_id: str) -> TicketJob | None:
    """Return a job that has a ticket, or None."""
    if not connection.exists(keys.ticket(job_id)):
        return None
    return TicketJob(connection, job_id, Tickets(connection, "").read(job_id))


def described(fields: dict[str, str]) -> tuple[str, str]:
    """Return class and arguments of the job in a ticket, and its queue; empty texts for unreadable parts."""
    try:
        stored: Any = json.loads(fields.get("message", ""))
        path, args, kwargs = (stored["body"][0] if "body" in stored else stored["args"])[:3]
        texts = [json.dumps(each) for each in args]
        texts += [f"{name}={json.dumps(each)}" for name, each in kwargs.items()]
        queue = (
            fields.get("queue") or stored.get("queue_name") or stored.get("queue") or stored["routing_key"]
        )
        return f"{str(path).partition(':')[2]}({', '.join(texts)})", str(queue)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "", ""
