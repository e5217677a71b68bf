"""Probes that find crash points: while :func:`installed`, they report each external effect of a life to its observer.

Outside of that block nothing is hooked. Inside, threads that belong to no life pay for one look-up.

==========================================  ===========================================================================
``before-statement``, ``statement``         an SQL statement; ``before-commit``, ``commit``: a commit (:mod:`.sql`)
``before-redis``, ``redis``                 a Redis command or pipeline (:mod:`.redis`)
``before-mail``, ``mail``                   a mail over SMTP (:mod:`.mail`)
``before-request``, ``request``             a request over HTTP (:mod:`.web`)
``write``                                   a file opened for writing, renamed or removed (:mod:`.files`)
``step``, ``checkpoint``, ``saved``         edges of steps, checkpoints, and saves of progress (:mod:`.steps`)
==========================================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from harness.explore.crash import threads_inherit
from harness.explore.probes import files, mail, process, redis, sql, steps, web

_PROBES = (
    sql.probes, redis.probes, mail.probes, web.probes, files.probes, process.probes, steps.probes, threads_inherit,
)  # fmt: skip


@contextmanager
def installed() -> Iterator[None]:
    """Hook everything that crash points are known of, until the block ends."""
    with ExitStack() as stack:
        for probes in _PROBES:
            stack.enter_context(probes())
        yield
