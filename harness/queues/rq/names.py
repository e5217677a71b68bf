"""Names of the queues on a Redis, whatever else is in RQ's set of them.

RQ registers every queue in one set. A queue class with a ``redis_queue_namespace_prefix`` of its own, another
application's too, adds its keys to the same set, and ``Queue.all`` raises on the first of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError
from rq import Queue
from rq.serializers import JSONSerializer

if TYPE_CHECKING:
    from redis import Redis

KNOWN_LIMIT = 1_000
"""Number of entries that a process remembers as skipped; more are skipped without a log line."""

log = logging.getLogger("harness.rq")

_skipped: set[bytes] = set()


def all_queues(connection: Redis) -> list[Queue]:
    """Return RQ's queues on a Redis, each once, sorted by name.

    Entries that are no key of RQ's own prefix are skipped, and named in the log once by each process.
    """
    try:
        entries: Any = connection.smembers(Queue.redis_queues_keys)
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        _skip(Queue.redis_queues_keys.encode(), "it is not a set; RQ keeps the keys of its queues there")
        return []
    return [Queue(name, connection=connection, serializer=JSONSerializer) for name in queue_names(entries)]


def queue_names(entries: Iterable[bytes]) -> list[str]:
    """Return the names of the queues in the members of RQ's set, sorted; skip what is no queue of RQ's own prefix."""
    names = set()
    for entry in entries:
        name = _name(entry)
        if name is not None:
            names.add(name)
    return sorted(names)


def _name(entry: bytes) -> str | None:
    prefix = Queue.redis_queue_namespace_prefix
    try:
        key = entry.decode()
    except UnicodeDecodeError:
        _skip(entry, "it is not UTF-8")
        return None
    if not key.startswith(prefix):
        _skip(
            entry, f"it does not begin with {prefix}; a queue class with a prefix of its own adds such keys"
        )
        return None
    return key.removeprefix(prefix)


def _skip(entry: bytes, why: str) -> None:
    if entry in _skipped or len(_skipped) >= KNOWN_LIMIT:
        return
    _skipped.add(entry)
    log.warning("%s: skipped %.200r: %s", Queue.redis_queues_keys, entry, why)
