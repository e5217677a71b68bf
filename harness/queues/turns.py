"""Turns of a worker's threads, none of which runs while the worker forks.

A fork copies the locks of a process, but only the thread that forks. A lock that another thread holds at that
moment stays locked in the child forever. The connection pool of redis-py has such a lock, and the child takes
it at its first command. A work horse would hang there, while its worker renews the lease on its job.
``datetime.strptime`` and the import of modules have such locks too.

So a thread of this package works in turns (:func:`turn`), and a fork waits until no other thread has one. The wait
ends after :data:`FORK_WAIT_SECONDS`: a turn that long waits for a Redis that does not answer, and holds no lock then.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

FORK_WAIT_SECONDS = 5.0
"""Time limit of a fork's wait for the turns of other threads."""

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGALRM}
"""Signals whose handlers may raise; Python ignores an error in a function that it calls before a fork."""


class _Turns:
    """Threads that have a turn, and the forks that wait for them."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.threads: set[int] = set()
        self.forks = 0

    def begin(self) -> None:
        with self.changed:
            while self.forks:
                self.changed.wait()
            self.threads.add(threading.get_ident())

    def end(self) -> None:
        with self.changed:
            self.threads.discard(threading.get_ident())
            self.changed.notify_all()

    def wait(self) -> None:
        """Wait for the others, and keep the lock: a turn requested now starts after the fork."""
        give_up = time.monotonic() + FORK_WAIT_SECONDS
        self.changed.acquire()
        self.forks += 1
        while self.threads - {threading.get_ident()} and (left := give_up - time.monotonic()) > 0:
            self.changed.wait(left)


_turns = _Turns()
_forking = threading.local()


@contextmanager
def turn() -> Iterator[None]:
    """Prevent forks of other threads while the block runs; wait for a fork that has started."""
    _turns.begin()
    try:
        yield
    finally:
        _turns.end()


def give_way() -> None:
    """Let a waiting fork run first; call it between two parts of a long turn."""
    if _turns.forks and threading.get_ident() in _turns.threads:
        _turns.end()
        _turns.begin()


def _before_fork() -> None:
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _turns.wait()


def _after_in_parent() -> None:
    _turns.forks -= 1
    _turns.changed.notify_all()
    _turns.changed.release()
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _after_in_child() -> None:
    global _turns  # noqa: PLW0603 - the child has one thread, and its locks are free
    mine = _turns.threads & {threading.get_ident()}
    _turns = _Turns()
    _turns.threads = mine
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
