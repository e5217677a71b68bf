"""Stored data is checked at one boundary, which raises errors of this package and no others.

``tox run -e fuzz`` tries far more inputs of the properties here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from harness import cursor_type
from harness.boundary.decoding import DEPTH, RECORD_BYTES, parse_json
from harness.concurrency.kept_items import Quarantined
from harness.cursor import decode, encode
from harness.errors import CorruptProgress, CursorError, HarnessError, JobDefinitionError, UsageError
from harness.lab.journal import JournalContent
from harness.progress import Progress
from harness.queues.calls import check_call
from harness.queues.history import Entry, Heartbeat, read_history
from harness.runtime.rounds import Call, join
from harness.sources.parallel import SliceTable
from harness.stores import shared
from harness.stores.memory import MemoryStore
from harness.stores.redis import RedisStore
from harness.stores.rq_meta import FIELD, RQMetaStore, text_in_meta
from harness.stores.sql import SqlStore
from tests.comparisons import sample
from tests.examples import examples
from tests.jobs import CountByIteration
from tests.mutations import mutated, mutated_data
from tests.patterns.test_cursor import Phase, Position

CURSORS = [
    (date(2024, 2, 29), 17, "x"), {"a": [1.5, None, True]}, {"$tuple": 1}, UUID(int=7), b"\0\1", Decimal("0.10"),
    datetime(2024, 3, 31, 2, 30, tzinfo=UTC), Position(3, ("a", "b")), Phase.LOAD, [[1], [(2, (3,))]],
]  # fmt: skip
PROGRESS = json.loads(
    Progress(
        "7", job="tests.jobs:CountByIteration", epoch=3, state="interrupted", reason="stopping", completed=["load"],
        step="price", cursor=tuple(CURSORS), proof="x", attributes={"seen": [1, 2], "last": CURSORS[0]}, done=17,
        total=20, resumptions=2, runtime_s=1.5, quarantined=[Quarantined(3, 2, "ValueError: 3")],
    ).to_json()
)  # fmt: skip
HEARTBEAT = {
    "at": 1.0, "epoch": 1, "done": 9, "saved": 5, "unsaved_s": 1.0, "elapsed_s": 1.0, "items": 9, "total": 20,
    "durability": "on_stop()", "worker": "w", "host": "h", "pid": 1, "parent": 2,
}  # fmt: skip
ENTRY = {
    "what": "start", "epoch": 2, "done": 9, "job": "m:J", "total": 20, "worker": "w", "durability": "on_stop()",
    "enqueued_at": 1.5, "died": HEARTBEAT, "outcome": "", "reason": None,
}  # fmt: skip
DIVISION = dataclasses.asdict(
    SliceTable([encode(each) for each in CURSORS[:3]], [0, None, 1], [False] * 3, 2, [0, 1], 2, run="ab")
)
CALL = [
    "m:J", [encode(each) for each in CURSORS], {"rate": encode(CURSORS[5])},
    {"portion": [encode(CURSORS[0]), 5], "instance": ["7", 1], "round": "r"},
]  # fmt: skip
RECORDS = sample().to_json()
JOURNAL = [
    {"what": "start", "pid": 1, "at": 0.5}, {"what": "mark", "pid": 1, "at": 0.6, "item": "1"},
    {"what": "fire", "pid": 1, "at": 0.7, "reason": "flag"}, {"what": "saved", "pid": 1, "at": 0.7, "bytes": 90},
    {"what": "outcome", "pid": 1, "at": 0.8, "ended": "interrupted", "reason": "flag"},
    {"what": "end", "pid": 1, "at": 0.9},
]  # fmt: skip

seeds = st.integers(0, 2**64 - 1).map(Random)


def holds(read: Callable[[], Any]) -> Any:
    """Return what a decoder returns; None if it raises an error of this package, and fail for any other."""
    try:
        return read()
    except HarnessError as error:
        said = str(error)
    assert said.strip()
    assert len(said) < 2_000
    return None


@given(seeds)
def test_progress_is_read_or_refused_by_name(random: Random) -> None:
    """Mutated progress is refused by name, or can be stored again and comes back equal."""
    progress = holds(lambda: Progress.from_json("7", mutated(PROGRESS, random)))
    text = None if progress is None else holds(progress.to_json)
    if text is not None:
        again = Progress.from_json("7", text)
        kept = ("job", "epoch", "state", "step", "cursor", "proof", "attributes", "completed", "done")
        assert [getattr(again, name) for name in kept] == [getattr(progress, name) for name in kept]
        assert again.to_json() == text


@given(seeds)
def test_a_cursor_is_read_or_refused_by_name(random: Random) -> None:
    """A mutated cursor is refused by name, or can be stored again and comes back equal."""
    stored = [encode(each) for each in CURSORS]
    value = holds(lambda: decode(parse_json(mutated(stored, random), "the cursor")))
    if value is not None:
        again = holds(lambda: encode(value))
        assert again is None or decode(again) == value
    holds(lambda: decode(mutated_data(stored, random)))


@given(seeds)
def test_history_is_read_or_left_out(random: Random) -> None:
    """Mutated heartbeats and entries are read with the types they have, or left out."""
    heartbeat = Heartbeat.from_json(mutated(HEARTBEAT, random))
    entries = read_history([(b"17-0", {b"entry": mutated(ENTRY, random)}), ("x", {"y": "z"}), (b"\xff", {})])
    assert heartbeat is None or (type(heartbeat.epoch), type(heartbeat.worker)) == (int, str)
    assert all(
        type(each) is Entry and (each.died is None or type(each.died) is Heartbeat) for each in entries
    )


@given(seeds)
def test_a_division_is_read_or_refused_by_name(random: Random) -> None:
    """A mutated division is refused by name, or can be asked for the next slice."""
    store = MemoryStore()
    text = mutated(DIVISION, random).decode("utf-8", "replace")
    store.replace("parallel:7", None, text)
    division = holds(lambda: SliceTable.read(store, "7"))
    if division is not None:
        index = division.take(1)
        assert index is None or type(index) is int
        holds(lambda: [decode(each) for each in division.slices])


@given(seeds)
def test_progress_in_meta_is_read_or_refused_by_name(random: Random) -> None:
    """Mutated meta of an RQ job, with the progress of an older release in it, is read or refused by name."""
    meta = mutated({FIELD: json.dumps(PROGRESS), "user": 17}, random)
    holds(lambda: Progress.from_json("7", text_in_meta("7", meta) or "{}"))


@given(seeds)
def test_arguments_of_a_job_are_read_or_refused_by_name(random: Random) -> None:
    """Mutated arguments are refused by name, before anything is imported, or have the types that the worker needs."""
    call = mutated_data(CALL, random)
    if not isinstance(call, list) or len(call) not in {3, 4}:
        return

    def checked() -> bool:
        check_call(*call)
        return True

    if holds(checked):
        more = call[3] if len(call) == 4 and call[3] else {}
        assert (type(call[0]), type(call[1]), type(call[2]), type(more)) == (str, list, dict, dict)
        holds(lambda: [decode(each) for each in [*call[1], *call[2].values(), *(more.get("portion") or ())]])


@given(seeds)
def test_a_round_is_joined_or_refused_by_name(random: Random) -> None:
    """An execution joins mutated progress, or refuses it by name, whatever class that names."""
    progress = holds(lambda: Progress.from_json("7", mutated(PROGRESS, random)))
    if progress is not None:
        progress.job = random.choice([progress.job, "", ":", ".", "..x", "x\0", "a:b:c", "json"]) == []


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '{"a":' * 100_000, "NaN", "[1e999]", "-Infinity", "x" * 10, " " * (RECORD_BYTES + 1),
        "[" * (DEPTH + 1) + "]" * (DEPTH + 1), b"\xff", b"\xff\xfe[\0]\0", "9" * 5_000, 17, None, [], {},
    ],
    ids=lambda text: str(text)[:8],
)  # fmt: skip
def test_text_outside_the_limits_is_refused(text: Any) -> None:
    """Data that is too large, too deep, not finite, not UTF-8 or not text is refused with the name of the record."""
    with pytest.raises(CorruptProgress, match="the record"):
        parse_json(text, "the record")


def test_a_record_within_the_limits_is_read() -> None:
    """The deepest record that is allowed is read, and so is each kind of number."""
    text = "[" * DEPTH + "1e308, -5, 0" + "]" * DEPTH
    assert json.dumps(parse_json(text, "the record")) == json.dumps(json.loads(text))


@pytest.mark.parametrize("levels", [121, 5_000])
def test_a_cursor_that_could_not_be_read_is_refused_when_it_is_set(levels: int) -> None:
    """A cursor that the boundary would refuse later is refused when it is stored."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    with pytest.raises(CursorError, match="nested more than 120 levels"):
        encode(value)
    with pytest.raises(CursorError, match="too many digits"):
        encode(10**5_000)
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(CursorError, match="nested more than 120 levels"):
        encode(cycle)


def test_the_deepest_cursor_comes_back() -> None:
    """A cursor that is accepted can be read back from the record that stores it."""
    value: Any = 1
    for _ in range(60):
        value = (value,)
    progress = Progress("7", step="price", cursor=value, attributes={"a": value})
    assert Progress.from_json("7", progress.to_json()) == progress


def test_a_dataclass_that_could_not_be_made_again_is_refused() -> None:
    """A field that the constructor does not take would be stored and refused later."""

    @dataclasses.dataclass
    class Odd:
        row: int
        seen: int = dataclasses.field(default=0, init=False)

    with pytest.raises(JobDefinitionError, match="does not take seen"):
        cursor_type(Odd)


@pytest.mark.parametrize("zone", ["Europe", "x" * 300, "a\0b", "/etc", ".."])
def test_a_zone_that_is_none_is_refused_by_name(zone: str) -> None:
    """The name of a folder of zones, a path or a long text is not a time zone."""
    with pytest.raises(CorruptProgress, match="stored cursor"):
        decode({"$datetime": ["2024-01-01T00:00:00", zone, 0]})


def test_a_key_of_another_type_is_refused_by_name_and_kept(real_redis: Redis) -> None:
    """A list where progress, or what jobs share, belongs is refused by every store in Redis, and stays."""
    for store, key in ((RedisStore(real_redis), "harness:progress:7"), (RQMetaStore(real_redis), "rq:job:7")):
        real_redis.rpush(key, "x")
        for act in (store.load, store.claim, store.delete):
            with pytest.raises(CorruptProgress, match="has another type"):
                act("7")
        assert real_redis.lrange(key, 0, -1) == [b"x"]
    real_redis.rpush("harness:shared:k", "x")
    for act_shared in (
        lambda: shared.read(real_redis, "k"),
        lambda: shared.replace(real_redis, "k", None, "y"),
    ):
        with pytest.raises(CorruptProgress, match="the shared record k"):
            act_shared()
    real_redis.delete("harness:shared:k")
    real_redis.set("harness:shared:k", b"\xff")
    with pytest.raises(CorruptProgress, match="is not UTF-8"):
        shared.read(real_redis, "k")


@pytest.mark.parametrize("epoch", ["x", None, -1, 1.5])
def test_a_row_of_other_types_is_refused_by_name(tmp_path: Path, epoch: Any) -> None:
    """SQLite stores any type in any column; the row stays as it was."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/odd.db")
    store = SqlStore(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("create table job_progress (job_id, epoch, state, progress, updated_at)")
        connection.exec_driver_sql(
            "insert into job_progress values ('7', ?, 'new', ?, 0)", (epoch, Progress("7").to_json())
        )
    with pytest.raises(CorruptProgress, match="has epoch"):
        store.load("7")
    engine.dispose()


def test_a_division_of_a_newer_release_is_refused_and_kept() -> None:
    """A change would write back only the fields known here, so the record is refused and stays."""
    store = MemoryStore()
    text = json.dumps({**DIVISION, "colour": "red"})
    store.replace("parallel:7", None, text)
    with pytest.raises(HarnessError, match="newer release"):
        SliceTable.change(store, "7", lambda division: division.take(1))
    assert store.read("parallel:7") == text


def test_a_journal_line_of_no_process_is_refused(tmp_path: Path) -> None:
    """An end without a start names the line's kind."""
    (tmp_path / "journal").write_text(json.dumps(JOURNAL[-1]))
    with pytest.raises(UsageError, match="has not started"):
        JournalContent(tmp_path / "journal")


@examples(200)
@given(st.text(max_size=30))
def test_any_path_is_found_or_refused_by_name(path: str) -> None:
    """Any text in the place of a class is refused by name."""
    holds(lambda: join(Progress("7", job=path), CountByIteration, Call()))
