"""Redis users with the access rules of the Redis guide, and what they were denied."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from tests.documents import ROOT

TOYS = ("~done:*", "~pid:*", "~release:*")
"""Keys that the toy jobs use themselves."""


def rules(rq_prefix: str) -> dict[str, str]:
    """Return the rules of the guide by user, adapted to a prefix of RQ's keys as the guide says."""
    text = (ROOT / "docs" / "redis.md").read_text(encoding="utf-8")
    found = dict(re.findall(r"^user (\w+) (.+)$", text, re.MULTILINE))
    assert set(found) == {"worker", "operator", "web"}
    if rq_prefix == "rq":
        return found
    assert (
        "write `~shop:*` instead of `~rq:* ~harness:*`, and `&shop:pubsub:*` instead of `&rq:pubsub:*`"
        in text
    )
    return {
        name: rule.replace("~rq:* ~harness:*", f"~{rq_prefix}:*").replace("&rq:", f"&{rq_prefix}:")
        for name, rule in found.items()
    }


@contextmanager
def user(connection: Redis, name: str, rule: str, url: str) -> Iterator[str]:
    """Make a user for a while, and yield the URL it connects with."""
    connection.execute_command("ACL", "SETUSER", name, "reset", *rule.split(), *TOYS)
    try:
        yield f"unix://{name}:secret@{url.removeprefix('unix://')}"
    finally:
        connection.execute_command("ACL", "DELUSER", name)


def denied(connection: Redis) -> list[tuple[Any, Any]]:
    """Return what was refused to each user since the log was reset."""
    return [(entry["username"], entry["object"]) for entry in connection.acl_log()]
