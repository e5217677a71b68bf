"""Calls that leave the process: a job that leaves its process would also leave the exploration.

``os._exit``, ``os.fork`` and ``os.forkpty``, which ``multiprocessing`` uses too, end the simulated process; the
cause names the call.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from harness.explore.crash import current
from harness.explore.probes.patching import patched


def probes() -> AbstractContextManager[None]:
    """Hook them, until the block ends."""
    forks = _leave("forks")
    return patched((os, "_exit", _leave("calls os._exit")), (os, "fork", forks), (os, "forkpty", forks))


def _leave(cause: str) -> Any:
    def wrap(call: Any) -> Any:
        @wraps(call)
        def hooked(*args: Any) -> Any:
            simulated = current()
            if simulated is None:
                return call(*args)
            simulated.reach("leave", cause)
            return simulated.die(cause)

        return hooked

    return wrap
