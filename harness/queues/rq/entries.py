"""Names read from Redis, which may be any bytes: decode, split and log them, and distinguish wrong data from outages.

One bad entry must not stop the work on the others. Each reader of RQ's sets and lists uses this module. An
entry that RQ cannot have written is logged once, skipped, and not changed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError
from rq import Queue
from rq.serializers import JSONSerializer

from harness.queues.periodic import shown
from harness.queues.rq.keys import DELAYED, ENDED, LEASES, OPEN, OWNERS, STRAYS

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

REMEMBERED = 10_000
"""Maximum number of logged names that a process remembers."""

WRONG_DATA = ("WRONGTYPE", "is not an integer", "is not a float", "is not a valid float", "would overflow")
"""Parts of Redis's error messages that mean wrong data; any other error of Redis is an outage."""

log = logging.getLogger("harness.rq")


def text_of(value: bytes | str) -> str | None:
    """Return a name as text; None if it is not UTF-8."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return None


def split(entry: bytes | str) -> tuple[str, str] | None:
    """Return the job id and the execution id of an entry of RQ's started registry; None for another form."""
    job_id, colon, execution_id = (text_of(entry) or "").partition(":")
    return (job_id, execution_id) if job_id and colon and ":" not in execution_id else None


def job_id_of(entry: bytes | str) -> str | None:
    """Return the job id of an entry of the started registry, as RQ reads it; None if RQ cannot read it.

    Releases of RQ before 2 wrote only the job id, and RQ's maintenance still handles such entries.
    """
    text = text_of(entry) or ""
    job_id, *others = text.split(":")
    return job_id if text and len(others) <= 1 else None


def number(value: Any) -> int:
    """Return a counter in a job's hash; 0 if it is missing or not a number."""
    try:
        return int(value or 0)
    except ValueError:
        return 0


def is_wrong_data(error: BaseException) -> bool:
    """Return whether an error of Redis means that a key has data that RQ or this package does not write."""
    return isinstance(error, ResponseError) and any(part in str(error) for part in WRONG_DATA)


def is_outage(error: BaseException) -> bool:
    """Return whether an error means that Redis cannot be used now, independent of its data."""
    return isinstance(error, RedisError) and not is_wrong_data(error)


class Complaints:
    """Log lines about bad entries, one for each name."""

    def __init__(self) -> None:
        self._said: set[tuple[str, str]] = set()

    def say(self, what: str, name: bytes | str, why: str | BaseException) -> None:
        """Log that an entry is skipped, unless that was logged before."""
        said = what, shown(name)
        if said in self._said:
            return
        if len(self._said) >= REMEMBERED:
            self._said.clear()
        self._said.add(said)
        log.error("%s %s cannot be used (%s); it was skipped and not changed", what, said[1], shown(why))


complaints = Complaints()
"""Logged bad entries of this process."""


def ask(pipeline: Pipeline) -> list[Any]:
    """Execute the commands, and return their answers; an error about wrong data is returned as an answer.

    :raises RedisError: if Redis cannot be used.
    """
    answers = pipeline.execute(raise_on_error=False)
    for each in answers:
        if isinstance(each, Exception) and not is_wrong_data(each):
            raise each
    return answers


def usable(what: str, name: bytes | str, answer: Any) -> bool:
    """Return whether an answer of :func:`ask` is not an error; log an error."""
    if not isinstance(answer, Exception):
        return True
    complaints.say(what, name, answer)
    return False


def queues_of(connection: Redis) -> tuple[list[Queue], bool]:
    """Return RQ's queues, and whether their set is readable; names that RQ cannot read are logged and skipped."""
    try:
        keys: Any = connection.smembers(Queue.redis_queues_keys)
    except ResponseError as error:
        if not is_wrong_data(error):
            raise
        complaints.say("the set of queues", Queue.redis_queues_keys, error)
        return [], False
    queues = []
    for key in keys:
        name = text_of(key)
        if name is None or not name.startswith(Queue.redis_queue_namespace_prefix):
            complaints.say("queue", key, f"its name must be UTF-8 after {Queue.redis_queue_namespace_prefix}")
            continue
        queues.append(queue_named(name[len(Queue.redis_queue_namespace_prefix) :], connection))
    return queues, True


def queue_named(name: str, connection: Redis) -> Queue:
    """Return a queue of that name, for jobs of this package."""
    return Queue(name, connection=connection, serializer=JSONSerializer)


_KINDS = {"zset": "sorted set", "hash": "hash"}


def set_aside(connection: Redis) -> None:
    """Rename keys of this package that have data of another type, so that work continues; log it.

    Crash in between: the next sweep renames the others. The data is kept under the new name.
    """
    right_kinds = {**dict.fromkeys((LEASES, OPEN, ENDED, STRAYS, DELAYED), "zset"), OWNERS: "hash"}
    for name, right in right_kinds.items():
        kind = text_of(connection.type(name))
        if kind not in {right, "none"}:
            connection.rename(name, f"{name}:set-aside")
            log.error("key %s held a %s, not a %s; it is now %s:set-aside", name, kind, _KINDS[right], name)
