"""Passwords of a Redis connection, kept out of process lists.

RQ's ``SpawnWorker`` writes the arguments of its Redis connection into the source that the work horse runs,
and that source is the horse's command line, which every user of the machine can read. While
:func:`hidden_passwords` is active, secret arguments appear in that source as an expression that reads the
environment, which only the same user can read. The horse takes them out of its environment there, so that the
job's own children inherit none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis

_SECRET = ("password", "ssl_password")
_VARIABLE = "HARNESS_REDIS_{}"


class _Hidden(str):
    """Password whose repr is an expression that reads it from the environment of the horse."""

    __slots__ = ("variable",)
    variable: str

    def __repr__(self) -> str:
        return f"__import__('os').environ.pop({self.variable!r})"


@contextmanager
def hidden_passwords(connection: Redis) -> Iterator[None]:
    """Pass the passwords of a connection through the environment of processes that start in this block."""
    arguments = connection.connection_pool.connection_kwargs
    hidden: dict[str, _Hidden] = {}
    for name in _SECRET:
        password = arguments.get(name)
        if isinstance(password, str):
            hidden[name] = _Hidden(password)
            hidden[name].variable = _VARIABLE.format(name.upper())
    before = {name: arguments[name] for name in hidden}
    # It is still a str: a connection that another thread opens now logs in with it.
    arguments.update(hidden)
    os.environ.update({each.variable: str.__str__(each) for each in hidden.values()})
    try:
        yield
    finally:
        arguments.update(before)
        for each in hidden.values():
            del os.environ[each.variable]
