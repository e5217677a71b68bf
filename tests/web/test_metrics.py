"""Metrics of the page, read as Prometheus reads them."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue

from harness.queues.rq import enqueue
from harness.queues.rq.overview import Watcher
from tests.web.jobs import NoArguments, Typed
from tests.web.site import Client, Site
from tests.worker_jobs import UntilReleased
from tests.workers import Workers, finish_here, wait_for, wait_for_worker


def metrics(client: Client) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values by name, and by the values of the labels in the order of their names."""
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        assert family.name not in found, "a family is there once"
        found[family.name] = {}
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(value for _, value in sorted(sample.labels.items()))] = (
                sample.value
            )
    return found


def test_counts_of_queues_and_actions(client: Client, queue: Queue) -> None:
    """Jobs by queue and place, and actions by name and result, are what Redis and the user know."""
    done, waiting = enqueue(queue, NoArguments), None
    finish_here(queue)
    waiting = enqueue(queue, Typed, 3)
    client.act("pause", waiting.id)
    client.act("pause", done.id)
    found = metrics(client)
    assert found["harness_redis_up"] == {(): 1.0}
    assert found["harness_queue_jobs"]["finished", "test"] == 1
    assert found["harness_queue_jobs"]["queued", "test"] == 1
    assert found["harness_web_actions_total"] == {("pause", "done"): 1, ("pause", "refused"): 1}


@pytest.mark.process
def test_figures_of_a_job_at_work(broker: Redis, jobs_queue: Queue, rq_workers: Workers) -> None:
    """A job at work is counted by its class, with its rate and what a kill would repeat; its worker is busy."""
    job = enqueue(jobs_queue, UntilReleased, 50_000)
    rq_workers.start()
    wait_for_worker(broker, "state", b"busy")
    wait_for(broker, job.id, 30)
    with Site(broker) as site:
        found = metrics(site.client())
        while not found["harness_items_per_second"].get(("UntilReleased", "test")):
            found = metrics(site.client())  # each waits for the next look
    labels = ("UntilReleased", "test")
    assert found["harness_jobs_running"] == {labels: 1}
    assert found["harness_items_at_risk"][labels] >= 0
    assert found["harness_workers"]["busy",] == 1
    assert found["harness_workers_silent"] == {(): 0}


def test_a_lost_redis_is_a_metric(redis: Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Redis is away its metric is 0, and no figure from before is told as one of now."""
    enqueue(queue, NoArguments)

    def lost(*_: Any) -> Any:
        raise RedisConnectionError("gone")

    with Site(redis) as site:
        assert "harness_queue_jobs" in metrics(site.client())
        monkeypatch.setattr(Watcher, "look", lost)
        found = metrics(site.client())
        while found["harness_redis_up"][()]:
            found = metrics(site.client())
    assert "harness_queue_jobs" not in found


def test_no_label_is_an_id_and_hostile_names_stay_labels(client: Client, redis: Redis) -> None:
    """Names with quotes, line breaks and braces are labels of one sample; arguments and ids are in none."""
    name = 'q"} 1\nharness_evil 2 {\\'
    queue = Queue(name, connection=redis, serializer="json")
    for number in range(3):
        enqueue(queue, Typed, number, "secret")
    finish_here(queue)
    found = metrics(client)
    assert "harness_evil" not in found
    assert any("harness_evil" in label for labels in found["harness_queue_jobs"] for label in labels)
    assert list(found["harness_jobs_crashes"]) == [("Typed", 'q"} 1 harness_evil 2 {\\')]
    assert "secret" not in client.get("/metrics").text
