"""Story of a job: its history as text and as a picture."""

from __future__ import annotations

import json
import os
import re
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Queue

from harness.monitor.story import story
from harness.monitor.story_picture import svg
from harness.monitor.story_text import text, where_time_went
from harness.overrides import Overrides, overriding
from harness.progress import Progress
from harness.queues.history import Entry, Heartbeat
from harness.queues.rq import SimpleWorker, enqueue
from harness.queues.rq.recovery import put_back
from harness.stops import Every
from harness.stores.sql import SqlStore
from tests.commands import harness, one_line
from tests.jobs import CountByIteration, plain
from tests.worker_jobs import Dies
from tests.workers import Workers

START = 1_000.0


def started(at: float, epoch: int, done: int, **more: Any) -> Entry:
    """Return the entry of a start."""
    return Entry(START + at, "start", epoch, done, job="shop:Import", durability="every(seconds=1)", **more)


def ended(at: float, epoch: int, done: int, outcome: str, reason: str | None = None) -> Entry:
    """Return the entry of an end."""
    return Entry(START + at, "end", epoch, done, outcome=outcome, reason=reason, total=200)


def heartbeat(at: float, epoch: int, done: int) -> Heartbeat:
    """Return a sign of life."""
    return Heartbeat(
        at=START + at, epoch=epoch, done=done, saved=done, unsaved_s=0.0, elapsed_s=1.0, items=done, total=200,
        durability="every(seconds=1)", worker="w", host="h", pid=1, parent=2,
    )  # fmt: skip


ENTRIES = [
    started(1, 1, 0, enqueued_at=START), ended(5, 1, 80, "interrupted", "stopping"),
    started(6, 2, 80, enqueued_at=START + 5), started(24, 3, 100, enqueued_at=START + 23, died=heartbeat(8, 2, 120)),
    ended(34, 3, 200, "completed"),
]  # fmt: skip
"""Entries of a deploy, a crash that was detected after 15 s, and the end."""


def test_where_the_time_went() -> None:
    """Work, waiting and undetected crashes add up to the total time; repeated work is counted separately."""
    told = story("7", "Import(17)", ENTRIES, None, now=START + 99)
    assert [(p.outcome, p.items, p.repeated, p.waited_s, p.unnoticed_s) for p in told.parts] == [
        ("interrupted", 80, 0, 1.0, 0.0), ("died", 40, 0, 1.0, 0.0), ("completed", 100, 20, 1.0, 15.0),
    ]  # fmt: skip
    assert (told.total_s, told.working_s, told.waiting_s, told.unnoticed_s) == (34.0, 16.0, 3.0, 15.0)
    assert (told.repeated, told.repeated_s) == (20, 1.0)
    assert sum(value for _, value in where_time_went(told)) == told.total_s


def test_the_story_in_a_terminal() -> None:
    """Headline, a lane for each execution with its reason, and the shares; 80 columns."""
    lines = text(story("7", "Import(17)", ENTRIES, None, now=START + 99)).splitlines()
    assert lines[1] == "completed: 200 items in 3 executions, 34.0 s"
    assert max(map(len, lines)) <= 80
    told = " ".join(" ".join(lines).split())
    assert "interrupted: stopping" in told
    assert re.search(r"2 ·*█+ crashed 40 items", told), "the word of the list and of the page"
    assert (
        "at least 20 of them again, and up to 1 item in progress, the previous crash was detected after 15.0 s"
        in told
    )
    assert "crash not yet detected 15.0 s 44%" in told


def test_of_what_is_completed_nothing_is_missing() -> None:
    """Items committed but not counted before a crash are not selected again, so the story does not show the total."""
    entries = [started(0, 1, 0), started(8, 2, 50, died=heartbeat(5, 1, 52)), ended(20, 2, 198, "completed")]
    told = story("7", "Import(17)", entries, None, now=START + 30)
    assert (told.done, told.total) == (198, 200)
    assert text(told).splitlines()[1] == "completed: 198 items in 2 executions, 20.0 s"
    assert "completed: 198 items in 2 executions" in svg(told)


def test_a_crashed_execution_did_at_least_what_the_next_one_began_with() -> None:
    """Items that were saved after the last sign of life count as items of the execution that crashed."""
    entries = [started(0, 1, 0), started(8, 2, 55, died=heartbeat(5, 1, 52)), ended(20, 2, 200, "completed")]
    told = story("7", "Import(17)", entries, None, now=START + 30)
    assert [part.items for part in told.parts] == [55, 145]
    assert told.repeated == 0


def test_a_long_reason_is_told_in_full() -> None:
    """Below the lane, where there is room for it."""
    reason = "OperationalError: the database has gone away and nobody knows where to"
    entries = [started(0, 1, 0), ended(5, 1, 80, "failed", reason)]
    lines = text(story("7", "Import(17)", entries, None, now=START + 9)).splitlines()
    assert reason in " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= 80


def test_a_job_at_work_is_told_until_now() -> None:
    """The story of a running job uses its heartbeat; without a heartbeat its position is unknown."""
    told = story("7", "Import(17)", ENTRIES[:1], heartbeat(3, 1, 30), now=START + 4)
    assert (told.state, told.done, told.parts[0].end_s) == ("running", 30, 4.0)
    lost = story("7", "Import(17)", ENTRIES[:1], None, now=START + 4, progress=Progress("7", done=10))
    assert (lost.state, lost.done, lost.parts[0].items) == ("running", 10, None)
    assert "its progress is unknown" in text(lost)


def test_what_is_no_longer_remembered_is_said() -> None:
    """The story says how much is missing, and of many executions a terminal shows only the first and the last."""
    many: list[Entry] = []
    for epoch in range(41, 81):
        many += [started(epoch, epoch, epoch), ended(epoch + 0.5, epoch, epoch + 1, "interrupted", "every:1")]
    told = text(story("7", "Import(17)", many, None, now=START + 99))
    assert "40 earlier executions: no longer recorded" in told
    assert "28 more executions" in told


def test_the_picture_says_the_same() -> None:
    """The SVG file needs nothing else, and has a text for readers who cannot see it, for any name of the job."""
    drawn = svg(story("7", "Import('<&>')", ENTRIES, None, now=START + 99))
    root = ET.fromstring(drawn)  # noqa: S314 - our own
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}title") == "Import('<&>'): completed: 200 items in 3 executions, 34.0 s"
    assert "Execution 2: crashed" in str(root.findtext(f"{space}desc"))
    kinds = [each.get("class") for each in root.iter(f"{space}rect")]
    assert (kinds.count("polite"), kinds.count("harsh"), kinds.count("good"), kinds.count("again")) == (
        1,
        1,
        1,
        1,
    )
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")


def test_an_end_that_nobody_wrote() -> None:
    """The progress has the end if the job had time to save it; if the queue has failed the job, it crashed."""
    entries, sign = [started(1, 1, 0)], heartbeat(3, 1, 30)
    saved = Progress("7", epoch=1, ended=1, state="completed", done=200)
    told = story("7", "Import(17)", entries, sign, now=START + 99, progress=saved)
    assert (told.state, told.done, told.parts[0].outcome, told.total_s) == (
        "completed",
        200,
        "completed",
        2.0,
    )
    told = story("7", "Import(17)", entries, sign, now=START + 99, failure="its horse was terminated")
    assert (told.state, told.done, told.parts[0].outcome, told.total_s) == ("failed", 30, "died", 2.0)


def test_a_failure_that_no_execution_tells_of() -> None:
    """If a job crashed too often before its code was reached, the text and the picture both say so."""
    reason = (
        "CrashLimit: the worker of job 7 crashed 11 times before it reached the job's code, allowed are 10"
    )
    told = story("7", "Import(17)", ENTRIES[:2], None, now=START + 99, failure=reason)
    lines = text(told).splitlines()
    assert lines[1] == "failed: 80 of 200 items in 1 execution, 5.00 s"
    assert max(map(len, lines)) <= 80
    assert f"failed by its queue: {reason}" in " ".join(" ".join(lines).split())
    assert svg(told).count(escape(f"failed by its queue: {reason}")) == 2
    ET.fromstring(svg(told))  # noqa: S314 - our own


def test_a_failure_is_told_once() -> None:
    """The failure is reported by the execution that failed, if there is one."""
    entries = [started(1, 1, 0), ended(5, 1, 80, "failed", "OSError: no more")]
    told = story("7", "Import(17)", entries, None, now=START + 99, failure="OSError: no more")
    assert (told.state, told.failure, told.parts[0].reason) == ("failed", None, "OSError: no more")
    assert text(told).count("OSError: no more") == 1


@given(
    st.lists(
        st.tuples(st.floats(0, 50), st.floats(0, 50), st.integers(0, 500), st.booleans(), st.floats(-20, 20)),
        min_size=1,
        max_size=20,
    )
)
def test_any_history_can_be_told(lives: list[tuple[float, float, int, bool, float]]) -> None:
    """No time is negative, whatever the clocks say, and the shares are all of the time."""
    at, done, entries = 0.0, 0, []
    for epoch, (waits, lasts, items, dies, skew) in enumerate(lives, 1):
        at += waits
        entries.append(started(at, epoch, done, enqueued_at=START + at + skew))
        at += lasts
        if not dies:
            done += items
            entries.append(ended(at, epoch, done, "interrupted", "stopping"))
    told = story("7", "Import(17)", entries, None, now=START + at)
    for part in told.parts:
        assert min(part.waited_s, part.unnoticed_s, part.lasted_s, part.repeated) >= 0
    assert told.working_s + told.waiting_s + told.unnoticed_s <= told.total_s + 1e-6
    assert all(len(line) <= 80 for line in text(told).splitlines())
    ET.fromstring(svg(told))  # noqa: S314 - our own


def test_explain_tells_of_a_job(jobs_queue: Queue, broker: Redis, redis_url: str, tmp_path: Path) -> None:
    """The command finds the job by the beginning of its id, and writes text, JSON or a file."""
    job = enqueue(jobs_queue, CountByIteration, 20)
    with overriding(Overrides(stops=[Every(8)])):
        SimpleWorker([jobs_queue], connection=broker, commands=False).work(burst=True, logging_level="ERROR")
    target = tmp_path / "story.svg"
    told = harness("explain", job.id[:8], "--redis", redis_url, "--svg", str(target))
    assert told.exit_code == 0
    assert f"CountByIteration(20) ({job.id})" in told.output
    assert "completed: 20 items in 3 executions" in told.output
    assert target.read_text(encoding="utf-8").startswith("<svg")
    data = json.loads(harness("explain", job.id, "--redis", redis_url, "--json").output)
    assert [part["reason"] for part in data["parts"]] == ["every:8", "every:8", None]
    refused = harness("explain", job.id, "--redis", redis_url, "--svg", str(tmp_path / "nowhere" / "x.svg"))
    assert "cannot be written: No such file" in one_line_of(refused.stderr)


class CountsInDatabase(CountByIteration):
    """Keeps its progress in a database."""

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep progress in the database that the environment names."""
        return SqlStore(sa.create_engine(os.environ["HARNESS_DATABASE_URL"], poolclass=sa.NullPool))


def test_explain_reads_progress_in_a_database(
    jobs_queue: Queue, broker: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a job keeps its progress in a database, the named database knows an end that is missing from the history."""
    url = f"sqlite:///{tmp_path}/work.db"
    monkeypatch.setenv("HARNESS_DATABASE_URL", url)
    assert harness("init-db").exit_code == 0
    job = enqueue(jobs_queue, CountsInDatabase, 20)
    SimpleWorker([jobs_queue], connection=broker, commands=False).work(burst=True, logging_level="ERROR")
    broker.xtrim(f"harness:history:{job.id}", maxlen=0)
    broker.xadd(f"harness:history:{job.id}", {"entry": json.dumps({"what": "start", "epoch": 1, "done": 0})})
    told = harness("explain", job.id, "--redis", redis_url)
    assert "completed: 20 items in 1 execution" in told.output
    monkeypatch.delenv("HARNESS_DATABASE_URL")
    assert "running: 0 items" in harness("explain", job.id, "--redis", redis_url).output
    named = harness("explain", job.id, "--redis", redis_url, "--database", url, "--json")
    assert json.loads(named.output)["done"] == 20
    (tmp_path / "other.db").touch()
    other = harness("explain", job.id, "--redis", redis_url, "--database", f"sqlite:///{tmp_path}/other.db")
    assert "has no progress of this job" in one_line_of(other.stderr)
    refused = harness("explain", job.id, "--redis", redis_url, "--database", "work.db")
    assert "cannot be used" in one_line(refused)


def test_explain_tells_of_a_job_that_died_too_often(
    jobs_queue: Queue, redis_url: str, rq_workers: Workers
) -> None:
    """The story shows each crash, and the execution that gave up the job."""
    job = enqueue(jobs_queue, Dies, 5)
    rq_workers.finish()
    data = json.loads(harness("explain", job.id, "--redis", redis_url, "--json").output)
    assert [part["outcome"] for part in data["parts"]] == ["died", "died", "died", "failed"]
    assert data["parts"][-1]["reason"].startswith("CrashLimit: Dies crashed 3 times")
    assert (data["state"], data["failure"], data["done"]) == ("failed", None, 2)


@pytest.mark.parametrize("begun", [True, False])
def test_explain_tells_of_a_job_that_cannot_be_started(
    jobs_queue: Queue, broker: Redis, redis_url: str, begun: bool
) -> None:
    """RQ's failure is shown if the job crashed before its code was reached, even if no execution ever began."""
    job = enqueue(jobs_queue, CountByIteration, 20)
    worker = SimpleWorker([jobs_queue], connection=broker, commands=False)
    if begun:
        with overriding(Overrides(stops=[Every(8)])):
            worker.work(burst=True, max_jobs=1, logging_level="ERROR")
    # One death more is excused where an execution had begun: it could have been that one's.
    for _ in range(CountByIteration.max_crashes + 1 + begun):
        jobs_queue.pop_job_id()
        put_back(broker, jobs_queue, worker.prepare_execution(job).composite_key, died=True)
    told = harness("explain", job.id, "--redis", redis_url)
    said = " ".join((told.output if begun else one_line(told)).split())
    assert "crashed 11 times before it reached the job's code" in said
    assert ("failed: 8 of 20 items" if begun else "has no history: it is failed (CrashLimit:") in said


def one_line_of(stderr: str) -> str:
    """Return the only line."""
    assert len(stderr.splitlines()) == 1
    return stderr


@pytest.mark.parametrize("ours", [True, False])
def test_explain_needs_a_history(jobs_queue: Queue, redis_url: str, ours: bool) -> None:
    """A job that has not begun has no history, and neither has a plain function."""
    job = enqueue(jobs_queue, CountByIteration, 3) if ours else jobs_queue.enqueue_call(plain, args=(3,))
    assert "has no history: it is queued" in one_line(harness("explain", job.id, "--redis", redis_url))
    assert "there is no job 'nothing'" in one_line(harness("explain", "nothing", "--redis", redis_url))
