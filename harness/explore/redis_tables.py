"""Contents of Redis as tables: keys and values, elements, and jobs in RQ's queues; and commands to write them."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

from rq.defaults import RQ_KEY_PREFIX

from harness.explore.tables import Table

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
_KINDS = {
    b"hash": "hash", b"list": "list", b"set": "set", b"zset": "sorted set", b"stream": "stream", b"string": "string",
}  # fmt: skip
_REGISTRIES = ("scheduled", "deferred")
"""Registries of RQ with jobs that will run."""
EXPLORED = b"explored-"
"""Prefix of the ids of explored jobs; a job is not part of its own outcome."""


def tables(kept: dict[bytes, Any]) -> dict[str, Table]:
    """Return keys as tables: a row for each key, each field, element, member or entry, and each key that expires."""
    found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _TABLES}
    for raw, (kind, value, left) in kept.items():
        key = _text(raw)
        found["keys"].append((key, _read(value) if kind == b"string" else _KINDS.get(kind, _text(kind))))
        if left is not None:
            found["keys that expire"].append((key,))
        if kind == b"hash":
            found["hashes"] += [(key, _text(field), _read(each)) for field, each in value.items()]
        elif kind == b"list":
            found["lists"] += [(key, _read(each)) for each in value]
        elif kind == b"set":
            found["sets"] += [(key, _read(each)) for each in value]
        elif kind == b"zset":
            found["sorted sets"] += [(key, _read(each), score) for each, score in value]
        elif kind == b"stream":
            _add_stream(found, key, *value)
    return {name: Table(columns, found[name], known) for name, (columns, known) in _TABLES.items()}


_TABLES: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "keys": (("key", "value"), (0,)),
    "keys that expire": (("key",), (0,)),
    "hashes": (("key", "field", "value"), (0, 1)),
    "lists": (("key", "element"), ()),
    "sets": (("key", "member"), (0, 1)),
    "sorted sets": (("key", "member", "score"), (0, 1)),
    "streams": (("key", "id", "entry"), (0, 1)),
    "stream groups": (("key", "group", "not delivered", "pending"), (0, 1)),
    "pending entries": (("key", "group", "entry"), ()),
}
"""Names of the tables, each with its columns and its key."""


def _add_stream(
    found: dict[str, list[tuple[Any, ...]]], key: str, entries: list[Any], groups: list[Any]
) -> None:
    shown = {number: _entry(fields) for number, fields in entries}
    found["streams"] += [(key, _text(number), entry) for number, entry in shown.items()]
    for raw, last, pending in groups:
        name = _text(raw)
        later = sum(_order(number) > _order(last) for number in shown)
        found["stream groups"].append((key, name, later, len(pending)))
        found["pending entries"] += [(key, name, shown.get(number, "deleted")) for number, _, _ in pending]


def enqueued(kept: dict[bytes, Any]) -> Table:
    """Return the jobs in RQ's queues, now or later, except the explored one.

    Nothing is unpickled: the description and a hash of the data identify a job.
    """
    prefix = RQ_KEY_PREFIX.encode() + b":"
    where: list[tuple[bytes, str, str]] = []
    for key, (kind, value, _) in kept.items():
        _, _, name = key.removeprefix(prefix).partition(b":")
        if kind == b"list" and key.startswith(prefix + b"queue:") and not key.endswith(b":intermediate"):
            where += [(job_id, _text(name), "queued") for job_id in value]
        for registry in _REGISTRIES:
            if kind == b"zset" and key.startswith(prefix + registry.encode() + b":"):
                where += [(job_id, _text(name), registry) for job_id, _ in value]
    jobs = {
        key.removeprefix(prefix + b"job:"): value
        for key, (kind, value, _) in kept.items()
        if kind == b"hash" and key.startswith(prefix + b"job:")
    }
    placed = {job_id for job_id, _, _ in where}
    where += [
        (job_id, _text(job.get(b"origin", b"")), f"{_text(job.get(b'status', b''))}, in no queue")
        for job_id, job in jobs.items()
        if job_id not in placed
    ]
    rows = [
        (
            _text(job_id), queue, state, _text(jobs.get(job_id, {}).get(b"description", b"?")),
            sha256(jobs.get(job_id, {}).get(b"data", b"")).hexdigest()[:_DIGEST],
        )
        for job_id, queue, state in where
        if not job_id.startswith(EXPLORED)
    ]  # fmt: skip
    return Table(("id", "queue", "state", "job", "data"), rows, key=(0,))


_DIGEST = 12


def write(pipeline: Any, key: bytes, kind: bytes, value: Any) -> None:
    """Queue the commands that write a key."""
    if kind == b"string":
        pipeline.set(key, value)
    elif kind == b"hash":
        pipeline.hset(key, mapping=value)
    elif kind == b"list":
        pipeline.rpush(key, *value)
    elif kind == b"set":
        pipeline.sadd(key, *value)
    elif kind == b"zset":
        pipeline.zadd(key, dict(value))
    elif kind == b"stream":
        _write_stream(pipeline, key, *value)


def _write_stream(pipeline: Any, key: bytes, entries: list[Any], groups: list[Any]) -> None:
    for number, fields in entries:
        pipeline.xadd(key, fields, id=number)
    for name, last, pending in groups:
        pipeline.xgroup_create(key, name, id=last, mkstream=True)
        for number, consumer, times in pending:
            pipeline.xclaim(key, name, consumer, 0, [number], retrycount=times, force=True, justid=True)


def _entry(fields: dict[bytes, bytes] | None) -> str:
    return ", ".join(f"{_text(name)}={_text(value)}" for name, value in (fields or {}).items())


def _order(number: bytes) -> tuple[int, int]:
    milliseconds, _, count = number.partition(b"-")
    return int(milliseconds), int(count or 0)


def _read(value: Any) -> Any:
    """Return a value as a number if it is one, so that it can be compared; bytes that are not text stay bytes."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
