"""The ticker that wakes a job for its next look: promptness, and nothing left behind."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from harness import ContinuableJob, InlineRun, IterationJob, Step, events, every, on_stop, run, subscribe
from harness.durability import Durability
from harness.progress import Position
from harness.runtime.ticker import Ticker

LONG = 60.0
"""Bound of a wait in seconds that a loaded machine keeps."""


def tickers() -> list[threading.Thread]:
    """Return the threads of tickers in this process."""
    return [each for each in threading.enumerate() if each.name == "harness-ticker"]


class Spin(ContinuableJob):
    """Advances until it is stopped; a second is over long before its bound."""

    durability = on_stop()

    def perform(self) -> None:
        """Run one step."""

        @self.step("spin", start=0)
        def spin(step: Step) -> None:
            give_up = time.monotonic() + LONG
            for number in count():
                step.advance()
                if number % 10_000 == 0 and time.monotonic() > give_up:
                    raise AssertionError("nothing has stopped the job")


class SpinByIteration(IterationJob):
    """Goes through items until it is stopped."""

    durability = on_stop()

    def build_enumerator(self, *, cursor: int | None) -> Any:
        """Count."""
        return ((number, number) for number in count(0 if cursor is None else cursor + 1))

    def each_iteration(self, item: int) -> None:
        """Do nothing; give up after a minute."""
        if item == 0:
            self.give_up = time.monotonic() + LONG
        if item % 10_000 == 0 and time.monotonic() > self.give_up:
            raise AssertionError("nothing has stopped the job")


class After:
    """Stop source with an interval that says stop after a time, and counts how often it is asked."""

    interval = 0.1

    def __init__(self, seconds: float) -> None:
        self.at, self.asked = time.monotonic() + seconds, 0

    def __call__(self, _: Position) -> bool:
        """Say stop once the time has come."""
        self.asked += 1
        return time.monotonic() >= self.at


@pytest.mark.parametrize("job", [Spin, SpinByIteration])
def test_a_source_is_asked_when_its_interval_is_over(job: type[Any]) -> None:
    """A job that only counts is woken for its stop sources, and asks them as rarely as they say."""
    source = After(0.35)
    ended = InlineRun(job, stops=[source]).execute()
    assert ended.reason == "stopping"
    assert source.asked <= 5
    assert tickers() == []


def test_max_runtime_ends_a_job_that_only_counts() -> None:
    """The deadline of max_runtime is a look that the ticker wakes for."""

    class Limited(Spin):
        max_runtime = 0.2

    assert InlineRun(Limited).execute().reason == "max_runtime"


def test_a_save_by_time_needs_no_other_look() -> None:
    """every(seconds=…) saves at the first checkpoint after its time."""
    saves: list[str] = []
    source = After(0.75)
    with subscribe(lambda event: saves.append(event.why), events.ProgressSaved):  # type: ignore[attr-defined]
        InlineRun(Spin, durability=every(seconds=0.2), stops=[source]).execute()
    assert 1 <= saves.count("checkpoint") <= 3


def test_a_short_job_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """An execution of a few items costs no thread."""
    started: list[object] = []
    monkeypatch.setattr(Ticker, "_start", started.append)

    class Short(ContinuableJob):
        def perform(self) -> None:
            @self.step("few", start=0)
            def few(step: Step) -> None:
                for _ in range(100):
                    step.advance()

    run(Short)
    assert started == []


@pytest.mark.parametrize("durability", [on_stop(), every(seconds=1)])
def test_an_injected_clock_is_read(durability: Durability) -> None:
    """A clock that is not time.monotonic decides alone when a look is due, whatever time it really is."""
    now = [0.0]

    class Jumps(ContinuableJob):
        def perform(self) -> None:
            @self.step("spin", start=0)
            def spin(step: Step) -> None:
                for number in range(1_000):
                    now[0] += 1.0 if number == 700 else 0.0
                    step.advance()

    source = After(0)
    source.at = 0.0
    seen: list[int] = []

    def ask(at: Position) -> None:
        seen.append(at.done)

    ask.interval = 0.5  # type: ignore[attr-defined]
    run(Jumps, stops=[ask], clock=lambda: now[0], durability=durability)
    assert seen == [1, 701]


def test_executions_end_their_tickers_whatever_ends_them() -> None:
    """An error and SystemExit leave no thread behind."""
    for error in (ValueError, SystemExit):

        class Fails(Spin):
            def perform(self) -> None:
                @self.step("fail", start=0)
                def fail(step: Step) -> None:
                    for _ in range(1_000):
                        step.advance()
                    assert len(tickers()) == 1
                    raise error  # noqa: B023 - run at once

        Fails.resume_errors_after_advancing = False
        with pytest.raises(error):
            InlineRun(Fails).execute()
        assert tickers() == []


def test_threads_and_tasks_have_tickers_of_their_own() -> None:
    """Jobs in several threads, some under an event loop, each stop when their own source says so."""

    def one(seconds: float) -> str | None:
        return InlineRun(Spin, stops=[After(seconds)]).execute().reason

    async def in_loop() -> list[str | None]:
        """Run two jobs in threads of an event loop."""
        return await asyncio.gather(*(asyncio.to_thread(one, 0.2) for _ in range(2)))

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(one, 0.2 + number / 10) for number in range(2)]
        assert asyncio.run(in_loop()) == ["stopping", "stopping"]
        assert [each.result() for each in futures] == ["stopping", "stopping"]
    assert tickers() == []


FORKS = """
import os, time
from harness import InlineRun
from tests.patterns.test_ticker import After, Spin

class Forks(Spin):
    def perform(self):
        @self.step("spin", start=0)
        def spin(step):
            for _ in range(1_000):
                step.advance()  # the ticker is at work by now
            if os.fork() == 0:
                self.child = True
            while True:
                step.advance()

source = After(0.4)
ended = InlineRun(Forks, stops=[source]).execute()
print(ended.reason, flush=True)
os._exit(0)
"""


def test_a_forked_child_reads_the_clock() -> None:
    """A child that a job forks has no ticker, and stops when it is time all the same."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        capture_output=True,
        text=True,
        check=True,
        timeout=LONG,
        cwd=Path.cwd(),
    )
    assert done.stdout.split() == ["stopping", "stopping"]


def test_signals_reach_the_main_thread() -> None:
    """The thread of a ticker blocks signals, whose handlers run in the main thread only."""
    ticker = Ticker(lambda: None)
    assert ticker.wake_at(time.monotonic() + LONG)
    try:
        (thread,) = tickers()
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text(encoding="ascii")
        blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            assert blocked & 1 << number - 1
            assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        ticker.close()


def test_a_ticker_wakes_for_a_time_that_was_brought_forward() -> None:
    """A nearer time replaces the one that the thread waits for, and each time is called for once."""
    woken = threading.Event()
    ticker = Ticker(woken.set)
    ticker.wake_at(time.monotonic() + 2 * LONG)
    ticker.wake_at(time.monotonic())
    assert woken.wait(LONG)
    woken.clear()
    ticker.wake_at(time.monotonic() + 0.01)
    assert woken.wait(LONG)
    ticker.close()
    assert tickers() == []


def test_a_process_without_threads_reads_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, sources are asked all the same."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("harness.runtime.ticker.Thread.start", refuse)
    assert InlineRun(Spin, stops=[After(0.2)]).execute().reason == "stopping"


def test_a_wake_while_a_checkpoint_runs_is_heard_at_the_next() -> None:
    """A flag that is set after its source was asked stops the job one item later."""
    asked: list[int] = []
    wakes: list[Callable[[], None]] = []

    class Late:
        interval = 60.0

        def attach(self, wake: Callable[[], None]) -> None:
            wakes.append(wake)

        def detach(self, wake: Callable[[], None]) -> None:
            wakes.remove(wake)

        def __call__(self, at: Position) -> bool:
            asked.append(at.done)
            if len(asked) == 1:
                wakes[0]()
            return len(asked) > 1

    assert InlineRun(Spin, stops=[Late()]).execute().reason == "stopping"
    assert asked == [1, 2]
