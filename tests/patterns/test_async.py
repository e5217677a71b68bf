"""Jobs with ``async def``: the loop of an execution, and the mistakes that only such jobs can make."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from harness import (
    ContinuableJob,
    Enumerator,
    InlineRun,
    IterationJob,
    Portion,
    Step,
    attribute,
    events,
    run,
    subscribe,
    throttle,
    times,
)
from harness.errors import InvalidStep, JobDefinitionError, Propagated, TasksLeft, UsageError
from harness.stops import Count, Every, Flag

NAME = ContextVar("NAME", default="none")


class Steps(ContinuableJob):
    """Async and plain steps, in each of the forms."""

    sums = attribute(default=0)

    async def perform(self, numbers: int, done: list[object]) -> None:
        """Call the steps."""
        self.done = done
        await self.step("load")
        self.step("plain")

        @self.step("count", start=0)
        async def count(step: Step) -> None:
            for number in range(step.cursor, numbers):
                await asyncio.sleep(0)
                done.append(number)
                self.sums += number
                step.advance()

        await count

        @self.step
        async def last() -> None:
            done.append("last")

        await last
        await self.step("plain_too")

    async def load(self) -> None:
        """Take a turn of the loop."""
        await asyncio.sleep(0)
        self.done.append("load")

    def plain(self) -> None:
        """Do it at once."""
        self.done.append("plain")

    def plain_too(self) -> None:
        """Do it at once, though it is awaited."""
        self.done.append("plain too")


@pytest.mark.parametrize("chunk", [1, 2, 7, 10])
def test_async_steps_are_done_once_however_they_are_interrupted(chunk: int, done: list[object]) -> None:
    """Completed steps are skipped, the one in progress goes on at its cursor, and plain steps may be mixed in."""
    inline = InlineRun(Steps, 5, done, stops=[Every(chunk)])
    ended = inline.drain()
    assert done == ["load", "plain", *range(5), "last", "plain too"]
    assert len(ended) == 5 // chunk + 1
    assert inline.progress is not None
    assert inline.progress.attributes == {"sums": 10}


def test_a_forgotten_await_is_found_and_named(done: list[object]) -> None:
    """A step that was not awaited is named at the next step, and at the end of perform."""

    class Forgets(ContinuableJob):
        async def perform(self, then: str) -> None:
            if then == "decorated":

                @self.step("load", start=0)
                async def load(step: Step) -> None:
                    done.append("load")

            else:
                self.step("one")
            if then == "another":
                await self.step("two")

        async def one(self) -> None:
            done.append("one")

        async def two(self) -> None:
            done.append("two")

    for then, name in {"another": "one", "end": "one", "decorated": "load"}.items():
        with pytest.raises(InvalidStep, match=rf"Step '{name}' of Forgets was not awaited.*await self\.step"):
            run(Forgets, then)
    assert done == []


def test_a_plain_perform_runs_async_steps(done: list[object]) -> None:
    """Without ``async def perform`` there is nothing to await: the step has run when the call returns."""

    class Mixed(ContinuableJob):
        def perform(self) -> None:
            self.step("load")
            done.append("after")

        async def load(self) -> None:
            await asyncio.sleep(0)
            done.append("load")

    run(Mixed)
    assert done == ["load", "after"]


class Pages(IterationJob):
    """All parts are async."""

    async def build_enumerator(self, numbers: int, *, cursor: int | None) -> AsyncIterator[tuple[int, int]]:
        """Yield numbers."""
        for number in range(0 if cursor is None else cursor + 1, numbers):
            await asyncio.sleep(0)
            yield number, number

    @asynccontextmanager
    async def around_iterate(self) -> AsyncIterator[None]:
        """Open what belongs to one task."""
        async with asyncio.TaskGroup() as self.group:
            yield

    async def each_iteration(self, number: int, numbers: int) -> None:
        """Note the item from a task of the group of the execution."""
        await self.group.create_task(self.note(number))

    async def note(self, number: int) -> None:
        """Note it."""
        DONE.append(number)


DONE: list[object] = []


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    DONE.clear()
    yield
    DONE.clear()


@pytest.mark.parametrize("chunk", [1, 3, 10])
def test_async_items_are_done_once_however_they_are_interrupted(chunk: int) -> None:
    """Pairs of ``async for``; the interruption comes out of the task group that around_iterate has opened."""
    ended = InlineRun(Pages, 10, stops=[Every(chunk)]).drain()
    assert list(range(10)) == DONE
    assert [each.reason for each in ended] == [f"every:{chunk}"] * (10 // chunk) + [None]


def test_each_part_may_be_plain_or_async() -> None:
    """Plain pairs and async items, async pairs and plain items, an Enumerator of either, a portion and a throttle."""

    async def pairs() -> AsyncIterator[tuple[int, int]]:
        for number in range(4):
            yield number, number

    def built(make: Any, each: Any) -> Any:
        return type(
            "Job", (IterationJob,), {"build_enumerator": make, "each_iteration": each, "__module__": __name__}
        )

    async def awaited(self: Any, number: int) -> None:
        await asyncio.sleep(0)
        DONE.append(number)

    def plain(self: Any, number: int) -> None:
        DONE.append(number)

    async def later(self: Any, *, cursor: Any) -> Any:
        return times(4, cursor=cursor)

    makers: list[Any] = [
        lambda self, *, cursor: times(4, cursor=cursor),
        lambda self, *, cursor: pairs(),
        lambda self, *, cursor: Enumerator(pairs, size=4),
        lambda self, *, cursor: throttle(pairs(), on=lambda: False, backoff=1),
        later,
    ]
    for make in makers:
        for each in (awaited, plain):
            DONE.clear()
            run(built(make, each))
            assert DONE == [0, 1, 2, 3]
            DONE.clear()
            run(built(make, each), portion=Portion(limit=2))
            assert DONE == [0, 1]

    def hiding() -> Any:
        return pairs()

    with pytest.raises(JobDefinitionError, match="the async generator function itself"):
        run(built(lambda self, *, cursor: Enumerator(hiding), plain))


def test_an_error_of_an_async_item_is_resumed_there(done: list[object]) -> None:
    """The cursor stays at the last success, and the item comes again; errors out of a task group as well."""

    class Fails(Pages):
        async def note(self, number: int) -> None:
            if number == 2 and "failed" not in DONE:
                DONE.append("failed")
                raise RuntimeError("not now")
            await super().note(number)

    ended = InlineRun(Fails, 4).drain()
    assert DONE == [0, 1, "failed", 2, 3]
    assert len(ended) == 2


def test_tasks_that_are_left_are_named_and_fail_the_job() -> None:
    """What they would do belongs to items that count as done; so does a stop while one is open."""

    class Leaves(Pages):
        @contextmanager
        def around_iterate(self) -> Iterator[None]:  # type: ignore[override]  # plain this time
            yield

        async def each_iteration(self, number: int, numbers: int) -> None:
            self.task = asyncio.create_task(self.wait())

        async def wait(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                DONE.append("cancelled")

    for stops in ([], [Count(1)]):
        with pytest.raises(TasksLeft, match=r"the job ended and left 1 asyncio tasks .*Leaves\.wait at line"):
            run(Leaves, 1, stops=stops)


def test_a_hook_that_leaves_a_task_has_failed() -> None:
    """The end is saved, so that only an event says it."""

    class Leaves(Pages):
        async def on_shutdown(self) -> None:
            self.task = asyncio.create_task(asyncio.Event().wait())
            await asyncio.sleep(0)

    seen: list[Any] = []
    with subscribe(seen.append, events.HookFailed):
        assert run(Leaves, 1).state == "completed"
    assert [(each.hook, type(each.error)) for each in seen] == [("on_shutdown", TasksLeft)]


def test_a_job_that_waits_hears_of_a_stop() -> None:
    """``stopping()`` returns the reason, and the next checkpoint stops the job for it."""
    flag = Flag()

    class Waits(Pages):
        async def each_iteration(self, number: int, numbers: int) -> None:
            if number == 1 and not flag():
                asyncio.get_running_loop().call_soon(flag.set, "deploy")
                assert await self.stopping() == "deploy"
                assert await self.stopping() == "deploy"
            DONE.append(number)

    inline = InlineRun(Waits, 3, stops=[flag])
    assert inline.execute().reason == "deploy"
    assert DONE == [0, 1]
    inline.stops.clear()
    inline.drain()
    assert DONE == [0, 1, 2]


def test_a_task_that_the_job_has_cancelled_is_none_that_is_left() -> None:
    """``cancel()`` only asks; the task ends at the next turn of the loop, which may come after the last item."""

    class Polls(Pages):
        async def each_iteration(self, number: int, numbers: int) -> None:
            stop = asyncio.create_task(self.stopping())
            await asyncio.sleep(0)
            stop.cancel()

    assert run(Polls, 1).state == "completed"


def test_a_waiting_job_asks_the_sources_that_wake_nobody() -> None:
    """``max_runtime`` is one: time passes while a job waits."""

    class Limited(Pages):
        max_runtime = 0.05

        async def each_iteration(self, number: int, numbers: int) -> None:
            DONE.append(await self.stopping())

    assert InlineRun(Limited, 1).execute().reason == "max_runtime"
    assert DONE == ["max_runtime"]


def test_an_error_out_of_a_signal_handler_lets_the_job_clean_up() -> None:
    """It is raised in the event loop, where no code of the job would see it."""

    def handle(number: int, frame: Any) -> None:
        raise Propagated(TimeoutError("too long"))

    class Waits(Pages):
        async def each_iteration(self, number: int, numbers: int) -> None:
            try:
                if number == 1 and "cleaned up" not in DONE:
                    asyncio.get_running_loop().call_later(0.01, lambda: None)
                    signal.setitimer(signal.ITIMER_REAL, 0.01)
                    await asyncio.Event().wait()
                DONE.append(number)
            except asyncio.CancelledError:
                DONE.append("cleaned up")
                raise

    before = signal.signal(signal.SIGALRM, handle)
    try:
        ended = InlineRun(Waits, 3).drain()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert DONE == [0, "cleaned up", 1, 2]
    assert ended[0].reason == "TimeoutError: too long"


def test_an_execution_has_a_loop_and_context_variables_of_its_own() -> None:
    """Nothing of them is there in the next execution; coroutines of one execution share them."""

    class Own(Pages):
        async def on_start(self) -> None:
            NAME.set("first")

        async def on_resume(self) -> None:
            DONE.append(NAME.get())

        async def each_iteration(self, number: int, numbers: int) -> None:
            DONE.append((number, NAME.get(), id(asyncio.get_running_loop()) and os.getpid() > 0))

    InlineRun(Own, 2, stops=[Every(1)]).drain()
    assert DONE == [(0, "first", True), "none", (1, "none", True), "none"]
    assert NAME.get() == "none"


def test_an_async_job_inside_a_running_loop_is_refused() -> None:
    """It would have to block that loop; the error says how to run it."""

    async def inside() -> None:
        run(Pages, 1)

    with pytest.raises(UsageError, match=r"await asyncio\.to_thread\(run, Job\)"):
        asyncio.run(inside())

    async def in_thread() -> Any:
        return await asyncio.to_thread(run, Pages, 2)

    assert asyncio.run(in_thread()).state == "completed"
    assert DONE == [0, 1]


def test_a_job_that_cancels_itself_fails_with_an_error() -> None:
    """A CancelledError that no one asked for is an error like another."""

    class Cancels(Pages):
        async def note(self, number: int) -> None:
            raise asyncio.CancelledError

        @asynccontextmanager
        async def around_iterate(self) -> AsyncIterator[None]:
            yield

        async def each_iteration(self, number: int, numbers: int) -> None:
            await self.note(number)

    with pytest.raises(RuntimeError, match="cancelled by its own code"):
        run(Cancels, 1)
