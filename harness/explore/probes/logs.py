"""Messages of ``logging``: an exploration switches them off, and reports those that a handler would have written.

A job logs in each of hundreds of trials, which would fill a terminal. A repeated message in a file is usually no
mistake. Handlers that write to a terminal, or nowhere, are not reported.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from harness.explore.crash import current
from harness.explore.probes.callers import caller
from harness.explore.probes.patching import patched


def probes() -> AbstractContextManager[None]:
    """Hook the look-up of a logger's level, until the block ends."""
    return patched((logging.Logger, "isEnabledFor", _reporting))


def _reporting(is_enabled: Any) -> Any:
    @wraps(is_enabled)
    def hooked(logger: logging.Logger, level: int) -> bool:
        simulated = current()
        if simulated is not None and not logger.disabled and level >= logger.getEffectiveLevel():
            for handler in _handlers(logger):
                found = caller(2) if level >= handler.level and _leaves(handler) else None
                if found is not None:
                    what = f"{type(handler).__name__} is switched off while the job is explored"
                    simulated.unseen("logging", what, found.line)
        return bool(is_enabled(logger, level))

    return hooked


def _handlers(logger: logging.Logger) -> Iterator[logging.Handler]:
    """Yield the handlers that get a message of a logger."""
    each: logging.Logger | None = logger
    while each is not None:
        yield from each.handlers
        each = each.parent if each.propagate else None


def _leaves(handler: logging.Handler) -> bool:
    """Return whether a handler writes to anything but a terminal or the memory of this process."""
    stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
    if isinstance(handler, logging.FileHandler):
        return handler.baseFilename != "/dev/null"
    if stream is None:
        return not isinstance(handler, logging.NullHandler)
    # A terminal, a test's capture and a buffer have no name, or one in angle brackets.
    name = getattr(stream, "name", None)
    return isinstance(name, str) and not name.startswith("<")
