"""New version of the code under the name of the old version, as after a deploy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from harness.cursor import types_standing_in
from harness.errors import UsageError
from harness.job import Job, find


def new_version(job: Any, name: str) -> Any:
    """Return the new version of a job.

    :param name: ``module:Name``, or a module in which it has the name of *job*. :raises UsageError: if it
        does not exist.
    """
    return find(name if ":" in name else f"{name}:{job.__qualname__}")


class Versions:
    """Two versions of the code: one is interrupted, the other resumes.

    The new job class runs under the path of the old one. So it gets the progress of the old one,
    and refuses it for the same reasons as a worker after a deploy.

    :param old: a job class or a function. :param new: another of the same kind; None for no deploy.
    :ivar new: the new version, named as the old one.
    """

    def __init__(self, old: Any, new: Any) -> None:
        self.old = old
        self._given = new
        self._stack, self._is_put = ExitStack(), False
        self.deploys = new is not None
        if new is None:
            self.new = old
        elif _is_job(old) and _is_job(new):
            # A subclass, because methods refer to their class by identity: super() does not work in a copy.
            named = {"__module__": old.__module__, "__qualname__": old.__qualname__}
            self.new = type(new)(old.__name__, (new,), named)
        elif callable(new) and not (_is_job(old) or isinstance(new, type)):
            self.new = new
        else:
            kind = "a job class" if _is_job(old) else "a function"
            raise UsageError(f"deploy= takes {kind}, as the job it replaces is one; got {new!r}")

    @property
    def name(self) -> str:
        """The dotted name under which the new version was found."""
        return f"{self._given.__module__}:{self._given.__qualname__}"

    @property
    def all(self) -> list[Any]:
        """The old version, and the new one if given."""
        return [self.old, self._given] if self.deploys else [self.old]

    @contextmanager
    def deployed(self, deployed: bool) -> Iterator[Any]:
        """Yield the version to run; RQ and stored cursors find this one under its name inside the block."""
        if not (deployed and self.deploys):
            yield self.old
            return
        self._put()
        try:
            yield self.new
        finally:
            self._stack.close()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Restore the old version inside the block, while an execution of the new one is paused in another thread."""
        deployed = self._is_put
        self._stack.close()
        yield
        if deployed:
            self._put()

    def _put(self) -> None:
        """Install the new version, until the stack is closed."""
        stack = self._stack
        stack.enter_context(types_standing_in(self._given.__module__, self.old.__module__))
        owner: Any = sys.modules[self.old.__module__]
        *owners, name = self.old.__qualname__.split(".")
        for each in owners:
            owner = getattr(owner, each, None)
        if owner is not None and vars(owner).get(name) is self.old:
            setattr(owner, name, self.new)
            stack.callback(setattr, owner, name, self.old)
        self._is_put = True
        stack.callback(setattr, self, "_is_put", False)


def _is_job(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, Job)
