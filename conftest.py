"""What holds for every test here: nothing is left behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """Fail a test that leaves threads, child processes, signal handlers or settings of the environment behind."""
    threads = set(threading.enumerate())
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    }
    variables = {name: value for name, value in os.environ.items() if name.startswith("HARNESS_")}
    yield
    left = [
        t.name for t in threading.enumerate() if t not in threads and not t.name.startswith(SESSION_THREADS)
    ]
    assert not left, f"threads left behind: {left}"
    for number, handler in handlers.items():
        assert signal.getsignal(number) == handler, f"handler of {signal.Signals(number).name} left behind"
    assert variables == {name: value for name, value in os.environ.items() if name.startswith("HARNESS_")}
    with pytest.raises(ChildProcessError):  # there is no child, not even one that has ended
        os.waitpid(-1, os.WNOHANG)


SESSION_THREADS = ("Thread-",)
"""The lab's mail server runs in a thread of aiosmtpd's naming for the whole session."""
