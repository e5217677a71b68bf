"""Probes that find crash points: while :func:`installed`, they report each external effect to an observer.

Outside of that block nothing is hooked. Inside, an effect in another thread costs one additional look-up.

==========================================  ===========================================================================
``before-statement``, ``statement``         an SQL statement; ``before-commit``, ``commit``: a commit (:mod:`.sql`)
``before-redis``, ``redis``                 a Redis command or pipeline (:mod:`.redis`)
``before-mail``, ``mail``                   a mail over SMTP (:mod:`.mail`); ``before-connect``: its connection
``before-request``, ``request``             a request over HTTP (:mod:`.web`)
``write``, ``opened``                       a file opened for writing, renamed or removed (:mod:`.files`)
``leave``                                   the job forks, or leaves or replaces its process (:mod:`.process`)
``step``, ``checkpoint``, ``saved``         edges of steps, checkpoints, and saves of progress (:mod:`.steps`)
``end``                                     the job is done, but the queue has not been updated (the target)
==========================================  ===========================================================================

The probes of clients that are loaded later, such as httpx, are in :mod:`.clients`. Effects that no probe watches are
reported: audit events (:mod:`.audit`), sockets (:mod:`.sockets`), drivers in C (:mod:`.drivers`), and messages of
``logging`` (:mod:`.logs`), and effects of Redis and PostgreSQL outside of the compared data (:mod:`.redis_server`,
:mod:`.postgres_server`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from harness.explore.probes import (
    aredis,
    audit,
    clients,
    drivers,
    files,
    logs,
    mail,
    postgres,
    process,
    redis,
    redis_server,
    sockets,
    sql,
    sqlite,
    steps,
    threads,
    web,
)  # fmt: skip

_PROBES = (
    sql.probes, sqlite.probes, postgres.probes, redis.probes, aredis.probes, mail.probes, web.probes, clients.probes,
    files.probes, process.probes, steps.probes, sockets.probes, drivers.probes, audit.probes, threads.probes,
    logs.probes, redis_server.probes,
)  # fmt: skip


@contextmanager
def installed() -> Iterator[None]:
    """Hook all known kinds of crash points, until the block ends."""
    with ExitStack() as stack:
        for probes in _PROBES:
            stack.enter_context(probes())
        yield
