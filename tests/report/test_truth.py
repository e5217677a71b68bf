"""Truth of the live output: what the monitor and explain say, held against what a kill has really repeated."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from harness.job import Job
from harness.monitor import Monitor, lines
from harness.monitor.jobs import risk
from harness.monitor.story import story
from harness.monitor.story_text import text
from harness.queues.history import Heartbeat, history
from harness.queues.rq import enqueue
from harness.queues.rq.overview import Watcher
from tests.commands import harness
from tests.letter_jobs import (
    BATCHES,
    EFFECTS,
    HANGS,
    Letters,
    LettersInSteps,
    LettersInWholeSteps,
    LettersOnStop,
)
from tests.workers import OURS, PATIENCE, Workers, told, wait_for


def wait_for_heartbeat(connection: Redis, job_id: str, *, done: int, steps: int) -> None:
    """Wait until the heartbeat of a job shows *done* items and *steps* unsaved steps."""
    connection.config_set("notify-keyspace-events", "K$")
    with connection.pubsub() as events:
        events.psubscribe(f"__keyspace@0__:harness:pulse:{job_id}")
        while True:
            heartbeat = Heartbeat.from_json(connection.get(f"harness:pulse:{job_id}"))
            if heartbeat is not None and (heartbeat.done, heartbeat.steps) == (done, steps):
                return
            assert events.get_message(timeout=PATIENCE), f"the heartbeat stays at {heartbeat}"


@pytest.mark.parametrize(
    ("job_class", "said", "explained", "items", "steps"),
    [
        (Letters, "repeat only the item in progress", "up to 1 item again", 0, 0),
        (LettersInSteps, "repeat only the item in progress", "up to 1 item again", 0, 0),
        (LettersOnStop, "and the item in progress", "at least 1 of them again, and up to 1 item in", 1, 0),
        (LettersInWholeSteps, "and the step in progress", "up to 1 item again, and items of its", 0, 1),
    ],
)
def test_what_is_said_of_a_kill_is_what_a_kill_repeats(
    *, rq_workers: Workers, jobs_queue: Queue, broker: Redis, redis_url: str,
    job_class: type[Job], said: str, explained: str, items: int, steps: int,
) -> None:  # fmt: skip
    """A job killed at effect 26 of an item repeats these 26, and of other items only what the monitor has counted."""
    job = enqueue(jobs_queue, job_class)
    worker = rq_workers.start(OURS, "--burst")
    wait_for(broker, job.id, EFFECTS + HANGS)
    wait_for_heartbeat(broker, job.id, done=0 if steps else 1, steps=steps)
    snapshot = Monitor(Watcher(broker, jobs=[job.id])).refresh()
    (row,) = snapshot.jobs
    assert (row.at_risk, row.steps_at_risk) == (items, steps)
    assert said in risk(row)
    shown = " ".join(" ".join(line.plain for line in lines(snapshot, "here")).split())
    assert said in shown
    assert f"a kill now would repeat {'only' if not items + steps else '1 '}" in shown

    assert harness("interrupt", job.id, "--kill", "horse", "--redis", redis_url).exit_code == 0
    assert worker.wait(PATIENCE) == 0

    sent = Counter(told(broker, job.id))
    assert set(sent) == set(range(BATCHES * EFFECTS))
    again = {number // EFFECTS: 0 for number in sent} | Counter(
        number // EFFECTS for number, times in sent.items() if times > 1
    )
    assert again == {0: EFFECTS if items + steps else 0, 1: HANGS, 2: 0}
    assert max(sent.values()) == 2

    entries, heartbeat = history(broker, job.id)
    found = story(job.id, "", entries, heartbeat, now=float(broker.time()[0]))
    assert [part.outcome for part in found.parts] == ["died", "completed"]
    assert found.repeated == items, "whole items are counted"
    assert found.parts[1].after_crash
    lines_of_it: Any = " ".join(text(found).split())
    assert explained in lines_of_it
    assert "Its effects may already have happened" in lines_of_it
    output = " ".join(harness("explain", job.id, "--redis", redis_url).output.split())
    assert explained in output


def test_a_job_that_stops_at_a_checkpoint_repeats_nothing(
    rq_workers: Workers, jobs_queue: Queue, broker: Redis, redis_url: str
) -> None:
    """A story without a crash has exact numbers, and no words on what they cannot show."""
    job = enqueue(jobs_queue, Letters)
    broker.set(f"hung:{job.id}", "not this time")
    rq_workers.finish()
    output = harness("explain", job.id, "--redis", redis_url).output
    assert "again" not in output
    assert "After a crash" not in output
