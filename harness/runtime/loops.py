"""Event loop of an execution: it runs the awaitables that a job's functions return.

Each execution has its own loop, created for the first awaitable and closed at its end. The core of an
execution is plain code: it gives each coroutine to :meth:`JobLoop.run`, which returns when the coroutine has
ended. Context variables that one coroutine sets are visible to the next.

asyncio is imported when it is needed: a job without ``async def`` does not load it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from harness.errors import Interrupt, JobDefinitionError, UsageError

if TYPE_CHECKING:
    import asyncio
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from contextvars import Context

SHOWN_TASKS = 5
"""Number of open tasks that an error names."""


BEAT_SECONDS = 1.0
"""Seconds between two checks whether the loop is blocked."""


CANCEL_SECONDS = 1.0
"""Time limit for a task to end after the job has cancelled it, in seconds."""


class JobLoop:
    """Event loop of one execution.

    :cvar factory: creates the loop; None for asyncio's default.
    """

    factory: ClassVar[Callable[[], asyncio.AbstractEventLoop] | None] = None

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._context: Context | None = None
        self._waiters: list[Callable[[], None]] = []
        self._late: Callable[[float], None] | None = None

    def watch(self, late: Callable[[float], None]) -> None:
        """Check once a second whether the loop is running; call *late* with the minimum seconds it was blocked."""
        self._late = late

    @property
    def is_running(self) -> bool:
        """True inside a coroutine of the job."""
        return self._runner is not None and self._runner.get_loop().is_running()

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Run an awaitable to its end, and return its result.

        :raises UsageError: if this thread runs an event loop already.
        :raises RuntimeError: if the coroutine ends because its own task was cancelled.
        """
        import asyncio  # noqa: PLC0415 - jobs without async def do not need it

        loop = self._made(awaitable)
        task = loop.create_task(_awaited(awaitable), name="job", context=self._context)
        heartbeat = None if self._late is None else _Heartbeat(loop, self._late)
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError as error:
            raise RuntimeError("the task of the job was cancelled by its own code") from error
        except BaseExceptionGroup as group:
            found = unwrapped(group)
            if found is group:
                raise
            raise found from group
        except BaseException as error:
            # A signal handler raised the error in the loop, while the job was waiting. Let the job clean up, then raise
            # it.
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    loop.run_until_complete(asyncio.wait([task]))
                if not task.cancelled() and task.exception() is not None:
                    error.add_note(f"while it was cleaning up, the job raised {task.exception()!r}")
                raise error from None
            raise
        finally:
            if heartbeat is not None:
                heartbeat.end()

    def finish(self, result: Any) -> Any:
        """Return the result of a call to the job; await it if it is awaitable."""
        return self.run(result) if is_awaitable(result) else result

    def wake(self) -> None:
        """Wake the coroutines that wait for a stop; safe in signal handlers and other threads."""
        for waiter in tuple(self._waiters):
            waiter()

    def add_waiter(self, waiter: Callable[[], None]) -> None:
        """Call *waiter* at each :meth:`wake`; it must be safe in signal handlers and other threads."""
        self._waiters.append(waiter)

    def remove_waiter(self, waiter: Callable[[], None]) -> None:
        """Undo :meth:`add_waiter`."""
        self._waiters.remove(waiter)

    def end_tasks(self) -> str:
        """Cancel unfinished tasks and wait for their end; return their names as text, empty for none."""
        if self._runner is None or self.is_running:
            return ""
        import asyncio  # noqa: PLC0415 - as above

        loop = self._runner.get_loop()
        asked = {task for task in asyncio.all_tasks(loop) if task.cancelling()}
        if asked:  # the job has cancelled them itself; they need one iteration of the loop to end
            loop.run_until_complete(asyncio.wait(asked, timeout=CANCEL_SECONDS))
        tasks = asyncio.all_tasks(loop)
        # asyncio finishes abandoned async generators in its own tasks; close() waits for these.
        names = sorted(map(_described, (task for task in tasks if not _finishes_generator(task))))
        if not names:
            return ""
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        more = f" and {len(names) - SHOWN_TASKS} more" if len(names) > SHOWN_TASKS else ""
        return f"{len(names)} asyncio tasks that are not done ({', '.join(names[:SHOWN_TASKS])}{more})"

    def close(self) -> None:
        """Cancel open tasks, finish async generators, and close the loop."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def _made(self, awaitable: Awaitable[Any]) -> asyncio.AbstractEventLoop:
        import asyncio  # noqa: PLC0415 - as above
        import contextvars  # noqa: PLC0415 - as above

        with suppress(RuntimeError):
            running = asyncio.get_running_loop()
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            if self._runner is not None and running is self._runner.get_loop():
                raise JobDefinitionError(
                    "a coroutine of the job called a plain function that needs the event loop itself, such as "
                    "step.set() outside of step.transaction() under with_transaction() with an AsyncSession; use "
                    "async with step.transaction()"
                )
            raise UsageError(
                "an async job cannot run inside a running event loop; run it in a thread: await "
                "asyncio.to_thread(run, Job)"
            )
        if self._runner is None:
            self._runner = asyncio.Runner(loop_factory=type(self).factory)
            self._context = contextvars.copy_context()
        return self._runner.get_loop()


class _Heartbeat:
    """Checks once a second whether the loop is blocked, while it runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, late: Callable[[float], None]) -> None:
        self._loop, self._late = loop, late
        self._plan()

    def end(self) -> None:
        """Check for the last time: a job that blocks may end before the next iteration of the loop."""
        self._next.cancel()
        self._look()

    def _plan(self) -> None:
        self._due = self._loop.time() + BEAT_SECONDS
        self._next = self._loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        self._look()
        self._plan()

    def _look(self) -> None:
        late_s = self._loop.time() - self._due
        if late_s > 0:
            self._late(late_s)


class EitherWay:
    """Context manager for ``with`` and for ``async with``, with separate implementations.

    :param plain: creates the one for ``with``. :param awaited: creates the one for ``async with``.
    """

    def __init__(
        self,
        plain: Callable[[], AbstractContextManager[Any]],
        awaited: Callable[[], AbstractAsyncContextManager[Any]],
    ) -> None:
        self._plain, self._awaited = plain, awaited

    def __enter__(self) -> Any:
        self._entered = self._plain()
        return self._entered.__enter__()

    def __exit__(self, *details: object) -> Any:
        leave: Any = self._entered.__exit__
        return leave(*details)

    async def __aenter__(self) -> Any:
        self._entered_async = self._awaited()
        return await self._entered_async.__aenter__()

    async def __aexit__(self, *details: object) -> Any:
        leave: Any = self._entered_async.__aexit__
        return await leave(*details)


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def is_async_session(session: object) -> bool:
    """Return whether a session is SQLAlchemy's ``AsyncSession``, or one with its methods."""
    return hasattr(session, "run_sync")


def is_awaitable(result: Any) -> bool:
    """Return whether a call returned an awaitable."""
    return hasattr(type(result), "__await__")


def unwrapped(error: BaseException) -> BaseException:
    """Return the interruption or the errors in an exception group.

    ``async with asyncio.TaskGroup()`` raises a group of the exceptions of its block and its tasks. If the
    group is one interruption, return it. If there are errors too, return the errors.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    interrupts, rest = error.split(Interrupt)
    if interrupts is None or rest is not None:
        return error if interrupts is None or rest is None else rest
    found: BaseException = interrupts
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _finishes_generator(task: asyncio.Task[Any]) -> bool:
    return type(task.get_coro()).__name__.startswith("async_generator")


def _described(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    name = getattr(coroutine, "__qualname__", type(coroutine).__name__)
    frame = getattr(coroutine, "cr_frame", None)
    line = f" at line {frame.f_lineno}" if frame is not None else ""
    return f"{name}{line}"
