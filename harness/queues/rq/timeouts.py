"""Delivery of RQ's timeout to the job boundary, past the job's own ``except Exception``.

RQ raises JobTimeoutException once, at any point of the job, when SIGALRM comes. It is an Exception: a job
that logs errors and continues swallows it, and its worker kills it a minute later. So while code of this
package runs, the signal raises the same error inside a BaseException. A bare ``except:`` still swallows that;
then the next checkpoint raises it again.

RQ's timeouts without signals, for systems that have no SIGALRM and for threads, stay as they are.
"""

from __future__ import annotations

import math
import signal
from typing import TYPE_CHECKING

from rq.timeouts import BaseDeathPenalty, BaseTimeoutException

from harness.errors import Propagated

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from harness.progress import Position
    from harness.stops import Wake


class Timeout:
    """RQ's timeout of the running job, raised past the job's handlers while the context is open; also a stop source."""

    interval = math.inf

    def __init__(self) -> None:
        self._penalty = signal.getsignal(signal.SIGALRM)
        self._error: Exception | None = None
        self._wakes: list[Wake] = []

    def __enter__(self) -> Timeout:
        """Replace RQ's signal handler, if it has one."""
        if self._is_rqs():
            signal.signal(signal.SIGALRM, self.handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore RQ's handler; a timeout that is still propagating is RQ's error from here on."""
        if self._is_rqs():
            signal.signal(signal.SIGALRM, self._penalty)
        if isinstance(error, Propagated):
            raise error.error from None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise RQ's error in a form that the job does not catch by accident."""
        assert callable(self._penalty)  # noqa: S101 - it was installed in its place
        try:
            self._penalty(number, frame)
        except BaseTimeoutException as error:
            self._error = error
            self._wake()
            raise Propagated(error) from None

    def attach(self, wake: Wake) -> None:
        """Call *wake* when the time is over."""
        self._wakes.append(wake)

    def detach(self, wake: Wake) -> None:
        """Undo :meth:`attach`."""
        self._wakes.remove(wake)

    def __call__(self, _: Position) -> None:
        """Raise the error again if it came and the job continued.

        :raises Propagated: then.
        """
        if self._error is not None:
            self._wake()
            raise Propagated(self._error)

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()

    def _is_rqs(self) -> bool:
        # RQ enters its penalty in the main thread only, so this is that thread.
        return isinstance(getattr(self._penalty, "__self__", None), BaseDeathPenalty)
