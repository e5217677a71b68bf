"""The monitor: what it shows of jobs in other processes, what it asks for it, and how it looks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis
from rich.console import Console
from rq import Queue

from harness import Enumerator, items, on_stop
from harness.monitor import Monitor, StatusTables, draw, lines, summary
from harness.overrides import Overrides, overriding
from harness.progress import Progress
from harness.queues.rq import SimpleWorker, enqueue, pause
from harness.queues.rq.overview import Watcher
from harness.stops import Every
from harness.stores.sql import SqlStore
from scenarios.emails import scenario as emails
from scenarios.orders import scenario as orders
from tests import jobs
from tests.commands import Terminal, harness
from tests.databases import KINDS, empty_database, used_by_services
from tests.jobs import CountByIteration, FailAt, plain
from tests.worker_jobs import UntilReleased
from tests.workers import PATIENCE, Workers, wait_for


def work(queue: Queue, **asked: Any) -> None:
    """Do all there is to do."""
    with overriding(Overrides(**asked)):
        SimpleWorker([queue], connection=queue.connection, commands=False).work(
            burst=True, logging_level="CRITICAL"
        )


class Watched(CountByIteration):
    """Lets a monitor look at it in its tenth number."""

    durability = on_stop()

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do one number."""
        super().each_iteration(item, numbers)
        if item == 9:
            recording: Any = self.execution.observers[0]  # type: ignore[attr-defined]  # not of the job's protocol
            recording._tell()
            jobs.DONE.append(Monitor(Watcher(recording._connection)).refresh())


def test_a_job_at_work_shows_what_a_kill_would_cost(queue: Queue, done: list[Any]) -> None:
    """Done, total, rate, executions, and the items that no save has made safe."""
    job = enqueue(queue, Watched, 20)
    work(queue)
    snapshot = next(each for each in done if not isinstance(each, int))
    (row,) = snapshot.jobs
    assert (row.id, row.name, row.state, row.queue) == (job.id, "Watched(20)", "running", "test")
    assert (row.done, row.saved, row.total, row.at_risk, row.executions) == (9, 0, 20, 9, 1)
    assert row.rate > 0
    assert row.left_s == pytest.approx(11 / row.rate)
    shown = "\n".join(line.plain for line in lines(snapshot, "here"))
    assert re.search(rf" {job.id}  running +█+░+ 9/20\n   Watched\(20\)  cursor 8\n", shown)
    assert re.search(r"\n +[\d,.]+/s, \d+\.\d s left; 1 execution; on_stop\(\)\n", shown)
    assert re.search(r"a kill now would repeat 9 items, \d+\.\d s, and the item in progress\n", shown)
    assert summary(snapshot).endswith("1 running, 0 queued, 0 failed; Watched(20) 9/20, 9 at risk")


def test_jobs_in_every_state(queue: Queue, redis: Redis) -> None:
    """Each is where RQ has it, and called what its progress knows better."""
    states = {
        enqueue(queue, CountByIteration, 20).id: "finished",
        enqueue(queue, FailAt, 5, 0).id: "failed",
        queue.enqueue_call(plain, args=(3,)).id: "finished",
    }
    held = enqueue(queue, CountByIteration, 5)
    states[held.id] = "paused"
    pause(redis, held.id)
    work(queue, stops=[Every(8)])
    waiting = enqueue(queue, CountByIteration, 5)
    states[waiting.id] = "queued"
    snapshot = Monitor(Watcher(redis)).refresh()
    assert {row.id: row.state for row in snapshot.jobs} == states
    assert {name: number for name, number in snapshot.queues["test"].items() if number} == {
        "queued": 1, "scheduled": 1, "finished": 2, "failed": 1,
    }  # fmt: skip
    assert snapshot.active
    failed = next(row for row in snapshot.jobs if row.state == "failed")
    assert (failed.last_end, failed.reason) == ("failed", "RuntimeError: cannot do 0")
    assert any("execution 3 resumed at 16 items" in event.what for event in snapshot.events)
    json.dumps(snapshot.to_data())


def test_a_refresh_is_one_round_trip(queue: Queue, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """All commands go out together, whatever there is; only the first look needs several to know the names."""
    for _ in range(3):
        enqueue(queue, CountByIteration, 5)
    watcher = Watcher(redis)
    watcher.look()
    trips: list[int] = []
    pipelines: Any = type(redis.pipeline())
    executed = pipelines.execute

    def execute(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
        trips.append(len(pipeline))
        return executed(pipeline, *args, **kwargs)

    monkeypatch.setattr(pipelines, "execute", execute)
    monkeypatch.setattr(type(redis), "execute_command", lambda *_: pytest.fail("a command of its own"))
    assert len(watcher.look().jobs) == 3
    assert len(trips) == 1


@pytest.fixture(params=KINDS)
def engine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[sa.Engine]:
    """Yield an engine on a database of orders and mails."""
    with empty_database(request, tmp_path) as engine, used_by_services(monkeypatch, engine.url):
        yield engine


def test_rows_by_status_are_one_query(engine: sa.Engine) -> None:
    """Orders, mails, and the progress of jobs that is in the database: one statement."""
    assert orders.statuses is not None
    assert emails.statuses is not None
    asked = StatusTables(engine, [orders.statuses(), emails.statuses()])
    assert asked.count(["7"]) == ({}, {})  # there is no table yet
    orders.seed("orders=7,mails=3")
    store = SqlStore(engine)
    store.create()
    progress = store.claim("7")
    progress.done = 4
    store.save(progress)
    statements: list[str] = []
    asked.count()  # the first call looks up which tables there are
    sa.event.listen(engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    counts, kept = asked.count(["7", "8"])
    assert counts["orders"]["pending"] == 7
    assert counts["mails of spring-2024"] == {"pending": 3}
    assert {job_id: each.done for job_id, each in kept.items()} == {"7": 4}
    assert isinstance(kept["7"], Progress)
    assert len([each for each in statements if each.startswith("SELECT")]) == 1


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 20), (40, 16), (20, 8)])
def test_it_fits_any_terminal(queue: Queue, redis: Redis, width: int, height: int) -> None:
    """Lines are cut, whole jobs give way, and what has no room is said to be there; workers and events stay."""
    for index in range(30):
        enqueue(
            queue,
            CountByIteration,
            10**12,
            options={"job_id": "long" * 9 + str(index), "description": "x" * 200},
        )
    enqueue(queue, CountByIteration, 1, options={"job_id": "done"})
    redis.lrem(queue.key, 1, "done")
    redis.lpush(queue.key, "done")
    SimpleWorker([queue], connection=redis, commands=False).work(
        burst=True, max_jobs=1, logging_level="CRITICAL"
    )
    redis.sadd("rq:workers", "rq:worker:far")
    redis.hset("rq:worker:far", mapping={"hostname": "h" * 200, "state": "idle"})
    snapshot = Monitor(Watcher(redis)).refresh()
    console = Console(width=width, record=True, color_system=None, force_terminal=False)
    with console.capture() as said:
        console.print(draw(snapshot, "unix:///" + "deep/" * 40, width=width, height=height, note="a note"))
    shown = said.get().splitlines()
    assert len(shown) <= height
    assert max(map(len, shown)) <= width
    assert any(" more jobs: " in line for line in shown) == (height < 40)
    if height >= 16:
        assert "WORKERS" in shown
        assert "EVENTS" in shown
    assert all(line.cell_len <= 80 for line in lines(snapshot, "unix:///" + "deep/" * 40))


@pytest.mark.parametrize("height", [None, 24, 40])
def test_jobs_that_are_not_listed_are_counted_by_place(
    queue: Queue, redis: Redis, height: int | None
) -> None:
    """The screen and its data say how many jobs of each place they leave out, and a full list says nothing."""
    waiting = [enqueue(queue, CountByIteration, 1).id for _ in range(30)]
    other = Queue("other", connection=redis, serializer="json")
    for _ in range(10):
        enqueue(other, CountByIteration, 1)
    SimpleWorker([other], connection=redis, commands=False).work(burst=True, logging_level="CRITICAL")
    for _ in range(8):
        enqueue(other, CountByIteration, 1)
    watcher = Watcher(redis)
    for _ in range(2):
        snapshot = Monitor(watcher).refresh()
        assert len(snapshot.jobs) == 8 + 8 + 4
        assert snapshot.to_data()["unlisted"] == {"queued": 22, "finished": 6}
        assert snapshot.more["jobs"] == 28
        assert " not listed: 22 queued, 6 finished" in [
            line.plain for line in lines(snapshot, "here", height=height)
        ]
    asked, _ = Monitor(Watcher(redis)).look([waiting[20], waiting[0]])
    assert asked.unlisted == {"queued": 21, "finished": 6}
    for job_id in waiting[8:]:
        redis.lrem(queue.key, 1, job_id)
    few = Monitor(Watcher(redis, ["test"])).refresh()
    assert (few.unlisted, few.more) == ({}, {})
    assert not any("not listed" in line.plain for line in lines(few, "here"))


@pytest.mark.parametrize("width", [20, 36, 40, 60, 80, 120])
@pytest.mark.parametrize("job_id", ["2f4e19aa-91b0-4f0b-9d2a-1c6f3f0a9d11", "nightly", "a" * 150])
def test_the_whole_id_is_shown_at_any_width(queue: Queue, redis: Redis, job_id: str, width: int) -> None:
    """An id that does not fit is folded, because every command that steers a job needs all of it."""
    enqueue(queue, CountByIteration, 5, options={"job_id": job_id})
    snapshot = Monitor(Watcher(redis)).refresh()
    shown = [line.plain for line in lines(snapshot, "here", width=width)]
    assert all(len(line) <= width for line in shown)
    assert job_id in "".join(line.strip().partition("  ")[0] for line in shown)


def test_jobs_at_work_come_first(queue: Queue, redis: Redis, done: list[Any]) -> None:
    """Jobs that are over never push one at work, the workers or the events off a screen of 24 lines."""
    for _ in range(4):
        enqueue(queue, CountByIteration, 3)
    work(queue)
    job = enqueue(queue, Watched, 20)
    for _ in range(4):
        enqueue(queue, FailAt, 5, 0)
    work(queue)
    snapshot = next(each for each in done if not isinstance(each, int))
    assert snapshot.jobs[0].id == job.id
    shown = [line.plain for line in lines(snapshot, "here", height=23)]
    assert len(shown) <= 23
    assert shown[2].startswith(f" {job.id}  running")
    assert {"QUEUES", "WORKERS", "EVENTS"} <= set(shown)
    assert any("execution 1 started" in line for line in shown)


def test_a_silent_job_is_pointed_out(queue: Queue, redis: Redis, done: list[Any]) -> None:
    """A job at work with an old heartbeat may have crashed without anything having detected it."""
    job = enqueue(queue, Watched, 20)
    work(queue)
    snapshot = next(each for each in done if not isinstance(each, int))
    redis.hset(f"rq:job:{job.id}", "status", "started")
    watcher = Watcher(redis, jobs=[job.id])
    row = snapshot.jobs[0]
    heartbeat = {
        "at": snapshot.at - 10, "epoch": 1, "done": 9, "saved": 5, "unsaved_s": 1.0, "elapsed_s": 1.0, "items": 9,
        "total": 20, "durability": "on_stop()", "worker": "w", "host": "h", "pid": 1, "parent": 2,
    }  # fmt: skip
    redis.set(f"harness:pulse:{job.id}", json.dumps(heartbeat))
    silent = next(each for each in Monitor(watcher).refresh().jobs if each.id == row.id)
    assert silent.silent_s is not None
    assert silent.silent_s >= 10
    assert (silent.saved, silent.at_risk) == (5, 4)
    shown = "\n".join(line.plain for line in lines(Monitor(watcher).refresh(), "here"))
    assert "no sign for 1" in shown
    redis.set(f"harness:pulse:{job.id}", json.dumps({**heartbeat, "epoch": 0}))
    stale = next(each for each in Monitor(watcher).refresh().jobs if each.id == row.id)
    assert (stale.done, stale.at_risk) == (20, None), "a heartbeat of an earlier execution says nothing"


class CountsLess(CountByIteration):
    """Thinks that there is more to do than there is."""

    def build_enumerator(self, numbers: int, *, cursor: Any) -> Enumerator[int]:
        """Count like a job that crashed after some items were committed, but before they were counted."""
        return Enumerator(items(range(numbers), cursor=cursor), size=numbers + 2)


def test_a_finished_job_misses_nothing(queue: Queue, redis: Redis) -> None:
    """Its bar is full, though it has counted less than its total."""
    enqueue(queue, CountsLess, 20)
    work(queue)
    snapshot = Monitor(Watcher(redis)).refresh()
    assert [(row.state, row.done, row.total) for row in snapshot.jobs] == [("finished", 20, 22)]
    shown = "\n".join(line.plain for line in lines(snapshot, "here"))
    assert re.search(r"finished +█{14} 20\n", shown)


def test_a_worker_that_gives_no_sign_is_silent(queue: Queue, redis: Redis, done: list[Any]) -> None:
    """Redis says that it is busy long after it was killed, also while another works on its job."""
    job = enqueue(queue, Watched, 20)
    work(queue)
    at = next(each for each in done if not isinstance(each, int)).at
    redis.hset(f"rq:job:{job.id}", "status", "started")
    heartbeat = {
        "at": at + PATIENCE, "epoch": 1, "done": 9, "saved": 5, "unsaved_s": 1.0, "elapsed_s": 1.0, "items": 9,
        "total": 20, "durability": "on_stop()", "worker": "alive", "host": "h", "pid": 1, "parent": 2,
    }  # fmt: skip
    redis.set(f"harness:pulse:{job.id}", json.dumps(heartbeat))
    for name, job_id in {"killed": job.id, "alive": job.id, "other": "with-no-heartbeat"}.items():
        redis.sadd("rq:workers", f"rq:worker:{name}")
        seen = datetime.fromtimestamp(at - 22, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        told: dict[Any, Any] = {
            "hostname": "h",
            "state": "busy",
            "current_job": job_id,
            "last_heartbeat": seen,
        }
        redis.hset(f"rq:worker:{name}", mapping=told)
    snapshot = Monitor(Watcher(redis, jobs=[job.id])).refresh()
    assert set(snapshot.silent) == {"killed"}
    shown = "\n".join(line.plain for line in lines(snapshot, "here"))
    assert re.search(r"killed h:\S+ busy, at \w+…, silent for 2\d\.\d s", shown)
    assert re.search(r"alive .* heartbeat 2\d\.\d s ago", shown)
    assert re.search(r"other .* heartbeat 2\d\.\d s ago", shown)


def test_status_and_monitor_once(jobs_queue: Queue, redis_url: str) -> None:
    """The same screen, printed; --json is the same as numbers."""
    job = enqueue(jobs_queue, CountByIteration, 5)
    for command in (["status"], ["monitor", "--once"]):
        said = harness(*command, "--redis", redis_url, "--queue", "test")
        assert said.exit_code == 0
        assert re.search(rf" {job.id}  queued\n   CountByIteration\(5\)\n", said.output)
        assert "test: 1 queued" in said.output
    data = json.loads(harness("status", "--redis", redis_url, "--json").output)
    assert [row["id"] for row in data["jobs"]] == [job.id]
    assert harness("status", "--redis", redis_url, "--queue", "other").output.count("none") == 2


def test_the_monitor_on_a_terminal(
    rq_workers: Workers, jobs_queue: Queue, broker: Redis, redis_url: str, tmp_path: Path
) -> None:
    """The monitor is live at 80 columns and without colour; Ctrl-C removes it and says that the jobs continue."""
    job = enqueue(jobs_queue, UntilReleased)
    rq_workers.start()
    wait_for(broker, job.id, 1)
    with Terminal(
        "monitor", "--redis", redis_url, "--every", "0.25", folder=tmp_path, NO_COLOR="1"
    ) as terminal:
        first = terminal.read_until(lambda text: "/1,000,000" in text and "heartbeat" in text)
        assert re.search(rf" {job.id}  running", first)
        assert "a kill now would repeat" in first
        assert "WORKERS" in first
        done = re.search(r"([\d,]+)/1,000,000", first)
        assert done is not None
        terminal.read_until(lambda text: "/1,000,000" in text and f" {done[1]}/1,000,000" not in text)
        assert all(cell.fg == "default" for row in terminal.screen.buffer.values() for cell in row.values())
        terminal.ctrl_c()
        assert terminal.end() == 130
        assert "harness: stopped; the jobs continue" in terminal.text.splitlines()
