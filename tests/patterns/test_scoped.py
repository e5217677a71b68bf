"""Settings and markers of trials belong to a thread or a task."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import mark, overrides
from harness.ledger import marking
from harness.overrides import Overrides, overriding


def test_two_threads_have_settings_of_their_own() -> None:
    """A thread reads what was set in it while another has other settings, and nothing once they end."""
    both = threading.Barrier(2, timeout=60)

    def read(seconds: float) -> float | None:
        with overriding(Overrides(poll_seconds=seconds)):
            both.wait()
            found = overrides.current.poll_seconds
            both.wait()
        return found

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(read, [1.0, 2.0])) == [1.0, 2.0]
    assert overrides.current.poll_seconds is None


def test_two_tasks_have_markers_of_their_own() -> None:
    """What a task marks goes to the marker of its own trial, whichever task runs in between."""

    async def trial(name: str) -> list[str]:
        """Mark three items, with a pause after each."""
        marked: list[str] = []
        with marking(marked.append):
            for number in range(3):
                mark(f"{name}{number}")
                await asyncio.sleep(0)
        return marked

    async def both() -> list[list[str]]:
        """Run two trials at a time."""
        return list(await asyncio.gather(trial("a"), trial("b")))

    assert asyncio.run(both()) == [["a0", "a1", "a2"], ["b0", "b1", "b2"]]


def test_threads_of_a_job_mark_for_its_trial() -> None:
    """A thread that a job starts has no marker; it uses the only one of the process."""
    marked: list[str] = []
    with marking(marked.append):
        thread = threading.Thread(target=mark, args=(7,))
        thread.start()
        thread.join()
    mark(8)
    assert marked == ["7"]


def test_settings_nest() -> None:
    """The inner settings replace the outer ones until their block ends; a second trial in a trial is refused."""
    with overriding(Overrides(poll_seconds=1)):
        with overriding(Overrides(delay_seconds=2)):
            assert (overrides.current.poll_seconds, overrides.current.delay_seconds) == (None, 2)
        assert (overrides.current.poll_seconds, overrides.current.delay_seconds) == (1, None)
    marked: list[str] = []
    with (
        marking(marked.append),
        pytest.raises(RuntimeError, match="a trial is already running"),
        marking(marked.append),
    ):
        pass
