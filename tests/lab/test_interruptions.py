"""Interruptions have names, and a wrong name gets one clear line."""

from __future__ import annotations

import signal
import time

import pytest

from harness.errors import UsageError
from harness.interruptions import parse_interruption
from harness.progress import Position
from harness.stops import Every, Flag, any_of, interval_of, throttled


class At:
    """A position to ask at."""

    job, job_id, run_id, cursor, completed = None, "7", "7", 17, ["load"]

    def __init__(
        self, items: int = 0, done: int = 0, total: int | None = None, step: str | None = "price"
    ) -> None:
        self.items, self.done, self.total, self.step = items, done, total, step


def fires(name: str, at: Position, total: int = 100, now: float = 0.0) -> bool:
    """Return True if the named trigger fires at that position, *now* seconds after it was made."""
    where = parse_interruption(name).where
    assert where is not None
    clock = iter([0.0, now])
    return where(total, lambda: next(clock))(at) is not None


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("count:20", At(done=19), At(done=20)),
        ("every:7", At(items=6, done=50), At(items=7)),
        ("progress:40%", At(done=39), At(done=40)),
        ("flag", At(done=49), At(done=50)),
        ("step:price@17", At(step="load"), At()),
        ("step:load", At(), At(step="load")),
        ("after-step:load", At(), At(step=None)),
        ("signal:TERM@count:3", At(done=2), At(done=3)),
        ("signal:INT", At(done=49), At(done=50)),
    ],
)
def test_a_trigger_fires_at_its_place(name: str, before: Position, after: Position) -> None:
    """A trigger fires at its place and not before it."""
    assert not fires(name, before)
    assert fires(name, after)


def test_time_is_counted_from_the_start() -> None:
    """time:0.5s fires at the first checkpoint after half a second."""
    assert not fires("time:0.5s", At(), now=0.49)
    assert fires("time:0.5s", At(), now=0.5)


def test_a_trigger_fires_once_unless_it_is_every() -> None:
    """Only every:N stops each execution; ``fired`` counts for the test that asks."""
    where = parse_interruption("count:1").where
    assert where is not None
    count = where(9, time.monotonic)
    assert [count(At(done=1)), count(At(done=2)), count.fired] == ["count:1", None, 1]
    each = Every(1)
    assert [each(At(items=1)), each(At(items=1)), each.fired] == ["every:1", "every:1", 2]


def test_signals_have_their_numbers() -> None:
    """The signal that is sent is the one that is named."""
    assert [parse_interruption("signal:TERM").by, parse_interruption("signal:INT@every:3").by] == [
        signal.SIGTERM,
        signal.SIGINT,
    ]
    assert parse_interruption("none").where is None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("", "unknown interruption ''"),
        ("sometimes", "unknown interruption 'sometimes'; use one of none, count:N"),
        ("count", "unknown interruption 'count'"),
        ("count:-1", "got '-1'; use a whole number of 1 or more"),
        ("every:0", "got '0'"),
        ("count:many", "got 'many'"),
        ("progress:0%", "got '0%'; use a number over 0 and up to 100% before '%'"),
        ("progress:101%", "got '101%'"),
        ("progress:40", "got '40'"),
        ("time:0s", "got '0s'"),
        ("time:1m", "got '1m'; use a number over 0 before 's'"),
        ("signal:KILL", "got the signal 'KILL'; use TERM, INT"),
        ("signal:TERM@flag", "after @ use count"),
        ("signal:TERM@none", "after @ use count"),
    ],
)
def test_a_wrong_name_gets_one_line(name: str, found: str) -> None:
    """The error of a wrong name says in one line what was found and what is allowed."""
    with pytest.raises(UsageError) as refused:
        parse_interruption(name)
    assert found in str(refused.value)
    assert "\n" not in str(refused.value)


def test_any_of_stops_for_the_first_reason() -> None:
    """Sources can be combined; a flag among them still wakes."""
    flag, woken = Flag(), []
    combined = any_of(flag, lambda at: "load" if at.done > 3 else None)
    combined.attach(lambda: woken.append(True))
    assert [combined(At()), combined(At(done=4))] == [None, "load"]
    flag.set()
    assert (combined(At(done=4)), woken, interval_of(combined)) == (True, [True], 0.0)
    flag.clear()
    assert combined(At()) is None


def test_a_throttled_source_is_asked_as_often_as_it_may_be() -> None:
    """Between two calls of the source the answer is to go on."""
    now, asked = [0.0], list[Position]()

    def asks(at: Position) -> str:
        asked.append(at)
        return "stop"

    source = throttled(asks, 0.5, clock=lambda: now[0])
    answers: list[object] = []
    for now[0] in (0.0, 0.4, 0.5, 0.6):
        answers.append(source(At()))
    assert (answers, len(asked)) == (["stop", None, "stop", None], 2)
