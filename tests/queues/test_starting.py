"""Start of a job with a ticket: what its claim does in one round trip, and the threads that spare it others."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from harness.errors import CorruptProgress, UsageError
from harness.iteration import IterationJob
from harness.lab.queue_jobs import Count
from harness.lab.queue_suite import wait_until
from harness.queues import celery, dramatiq
from harness.queues.calls import encoded_call
from harness.queues.celery.reserving import Reservations
from harness.queues.history import history
from harness.queues.holding import Held, new_owner
from harness.queues.periodic import Heartbeats
from harness.queues.ticket_calls import digest_of_call
from harness.queues.ticket_delivery import TicketDelivery
from harness.queues.ticketed import Queue
from harness.queues.tickets import Claimed, Sending
from harness.sources.enumerators import Enumerator, items
from harness.stores.redis import RedisStore
from tests.queues.backends import OnCelery, OnDramatiq

QUEUES = pytest.mark.parametrize("kind", [OnCelery, OnDramatiq])


class Plain(Queue):
    """A queue whose messages nobody takes."""

    kind = "celery"

    def send(self, sending: Sending) -> None:
        """Send nothing."""

    def send_instance(self, job_id: str, call: list[Any], model: Claimed) -> None:
        """Enqueue nothing."""


class Delivery(TicketDelivery[None]):
    """A delivery without a worker."""

    def stored_message(self) -> str:
        """Return the message."""
        return "message"

    def report(self, reason: str, outcome: str) -> None:
        """Report nothing."""


class Noted(IterationJob):
    """Calls a function with each item."""

    note: Any = staticmethod(lambda: None)

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Do one item."""
        return items([0], cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do it."""
        type(self).note()


CALL = encoded_call(Noted, (), {})


@pytest.fixture
def queue(real_redis: Redis) -> Iterator[Queue]:
    """Yield a queue with one job that waits under the number 1."""
    found = Plain(real_redis)
    opened = found.tickets.open("job", "round", digest_of_call(CALL), "message")
    found.tickets.sent("job", opened.n)
    yield found
    found.close()


def claimed(queue: Queue, n: int = 1) -> Claimed:
    """Claim the job."""
    claim = queue.claim("job", n, CALL, lambda: "message")
    assert isinstance(claim, Claimed), claim
    return claim


def test_a_job_starts_after_one_round_trip(real_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the delivery and the first item, the thread of the job sends one command to Redis."""
    sent: list[Any] = []
    base: Any = real_redis.connection_pool.connection_class

    class Counting(base):  # type: ignore[misc]  # the kind of connection is the server's
        def send_packed_command(self, command: Any, *more: Any, **options: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                sent.append(command)
            return super().send_packed_command(command, *more, **options)

    pool = ConnectionPool(connection_class=Counting, **real_redis.connection_pool.connection_kwargs)
    queue = Plain(Redis(connection_pool=pool))
    queue.tickets.open("job", "round", digest_of_call(CALL), "message")
    claimed(queue)  # loads the script
    queue.tickets.close("job", "cancelled")
    opened = queue.tickets.open("job", "round", digest_of_call(CALL), "message")
    queue.connection.delete("harness:progress:job")
    sent.clear()
    counts: list[int] = []
    monkeypatch.setattr(Noted, "note", staticmethod(lambda: counts.append(len(sent))))
    delivery = Delivery(queue, claimed(queue, opened.n), CALL, "worker")
    delivery.run()
    delivery.release()
    queue.close()
    pool.disconnect()
    assert counts == [1]


def test_a_claim_takes_the_progress_over(queue: Queue) -> None:
    """The claim of a job stores its progress with an epoch, and another claim of the progress supersedes it."""
    claim = claimed(queue)
    store = RedisStore(queue.connection)
    stored = store.load("job")
    assert stored is not None
    assert stored.epoch == 1
    progress = Delivery(queue, claim, CALL, "worker").store.claim("job")
    assert (progress.epoch, progress.claimed) == (1, stored.claimed)
    store.claim("job")
    assert (
        Delivery(queue, claim, CALL, "worker").store.claim("job").epoch == 1
    )  # what a late process would have
    with pytest.raises(Exception, match="claimed"):
        store.save(progress)


def test_a_claim_goes_on_with_earlier_progress(queue: Queue) -> None:
    """A job that has progress keeps it, and its epoch rises by one."""
    store = RedisStore(queue.connection)
    before = store.claim("job")
    before.done = 7
    store.save(before)
    progress = Delivery(queue, claimed(queue), CALL, "worker").store.claim("job")
    assert (progress.epoch, progress.done) == (2, 7)
    stored = store.load("job")
    assert stored is not None
    assert stored.epoch == 2


def test_progress_that_changes_in_between_is_read_again(queue: Queue) -> None:
    """If progress changes between the claim of the ticket and its own claim, the latest one is taken over."""
    store = RedisStore(queue.connection)
    store.claim("job")
    claim = claimed(queue)
    later = store.claim("job")
    later.done = 9
    store.save(later)
    progress = Delivery(queue, claim, CALL, "worker").store.claim("job")
    assert (progress.epoch, progress.done) == (3, 9)


def test_a_claim_whose_answer_was_lost_is_made_again(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that lost the answer to its claim asks again, and has the job; nothing is counted twice."""
    script, answers = queue.tickets._scripts["claim"], list[Any]()

    def losing(*arguments: Any, **named: Any) -> Any:
        answers.append(script(*arguments, **named))
        if len(answers) == 1:
            raise RedisConnectionError("the answer is lost")
        return answers[-1]

    monkeypatch.setattr("harness.queues.ticketed.UNAVAILABLE_SECONDS", 0)
    monkeypatch.setitem(queue.tickets._scripts, "claim", losing)
    claim = claimed(queue)
    assert (len(answers), claim.executions) == (2, 0)
    assert queue.tickets.read("job")["executions"] == "1"
    progress = Delivery(queue, claim, CALL, "worker").store.claim("job")
    assert (progress.epoch, progress.ended) == (1, 0)
    assert queue.claim("job", 1, CALL, lambda: "message") == "busy"


def test_a_key_of_another_type_is_named(queue: Queue) -> None:
    """Progress whose key holds something else fails the job with its name, and is left as it is."""
    queue.connection.lpush("harness:progress:job", "text")
    with pytest.raises(CorruptProgress, match="has another type"):
        Delivery(queue, claimed(queue), CALL, "worker").run()
    assert queue.connection.lrange("harness:progress:job", 0, -1) == [b"text"]


def test_a_class_that_is_not_imported_starts_later(queue: Queue) -> None:
    """A job whose module is yet to be imported has reached no code of its own when it is claimed."""
    call = ["unheard_of:Job", [], {}]
    queue.connection.hset("harness:ticket:job", "digest", digest_of_call(call))
    claim = queue.claim("job", 1, call, lambda: "message")
    assert isinstance(claim, Claimed)
    assert (claim.started, claim.starts) == (None, 1)
    assert queue.store.load("job") is None


def test_the_history_has_a_start_whose_execution_is_over_at_once(queue: Queue) -> None:
    """An execution that ends before the thread has written its start has both entries."""
    delivery = Delivery(queue, claimed(queue), CALL, "worker")
    delivery.run()
    delivery.release()
    entries, heartbeat = history(queue.connection, "job")
    assert [each.what for each in entries] == ["start", "end"]
    assert heartbeat is None


class Request:
    """What Celery keeps of a message."""

    def __init__(self, job_id: str) -> None:
        self.id, self.reservation, self.worker_pid = job_id, "", None


def test_messages_are_reserved_by_a_thread(queue: Queue) -> None:
    """A message has a lease soon after it has come, one that was forgotten has none, one that has started neither."""
    held = Held(queue.tickets)
    for job_id in ("kept", "forgotten", "started"):
        queue.tickets.open(job_id, "round", "digest", "message")
    owner = new_owner()
    queue.tickets.claim("started", 1, owner)
    reservations, requests = (
        Reservations(queue.tickets, held),
        {"kept": Request("kept"), "started": Request("started")},
    )
    reservations.add(requests["kept"], 1)
    reservations.add(Request("forgotten"), 1)
    reservations.add(requests["started"], 1)
    gc.collect()
    reservations.close()
    held._renew()
    leases = {job_id for job_id, _ in held._held}
    held.close()
    assert queue.tickets.read("kept")["owner"] == requests["kept"].reservation
    assert queue.tickets.read("started")["owner"] == owner
    assert leases == {"kept"}


def test_an_action_that_fails_stops_no_other() -> None:
    """The thread of the heartbeats calls each action once it is woken, and goes on after an error."""
    heartbeats, called = Heartbeats("harness-heartbeats-test", 3600.0), threading.Event()

    def failing() -> None:
        raise RedisConnectionError("refused")

    heartbeats.add(failing)
    heartbeats.add(called.set)
    heartbeats.wake()
    assert called.wait(60)
    called.clear()
    heartbeats.remove(called.set)
    again = threading.Event()
    heartbeats.add(again.set, at_once=True)
    assert again.wait(60)
    heartbeats.close()
    assert not called.is_set()


@QUEUES
def test_an_enqueue_under_an_id_joins_or_is_refused(kind: Any, real_redis: Redis, tmp_path: Path) -> None:
    """Of two enqueues under an id the second sends nothing, and one of another job is refused."""
    backend = kind(real_redis)
    backend.enqueue(Count, str(tmp_path / "lines"), 2, job_id="job")
    before = backend.queue.tickets.read("job")
    backend.enqueue(Count, str(tmp_path / "lines"), 2, job_id="job")
    with pytest.raises(UsageError, match="job 'job' has another class or other arguments, and is waiting"):
        backend.enqueue(Count, str(tmp_path / "lines"), 3, job_id="job")
    assert backend.queue.tickets.read("job") == before
    backend.work(lambda: backend.queue.tickets.read("job")["state"] == "over")
    assert backend.progress("job").epoch == 1


@QUEUES
def test_an_enqueue_under_an_id_needs_redis(
    kind: Any, real_redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An enqueue under an id raises the error of a Redis that cannot be reached: the id may be another job's."""
    backend = kind(real_redis)

    def refused(*_: Any, **__: Any) -> Any:
        raise RedisConnectionError("refused")

    monkeypatch.setattr(backend.queue.tickets, "open", refused)
    with pytest.raises(RedisConnectionError, match="refused"):
        backend.enqueue(Count, str(tmp_path / "lines"), 2, job_id="job")
    wait_until(lambda: backend.queue.tickets.read("job") == {})


@QUEUES
def test_a_message_that_joins_starts_no_job_before_its_time(
    kind: Any, real_redis: Redis, tmp_path: Path
) -> None:
    """A task with a fixed id that is sent while the job waits for its time, as Celery Beat does, starts nothing."""
    backend = kind(real_redis)
    call = encoded_call(Count, (str(tmp_path / "lines"), 2), {})
    if kind is OnCelery:
        celery.enqueue(
            backend.app, Count, str(tmp_path / "lines"), 2, options={"task_id": "job", "countdown": 3600}
        )
        backend.queue.task.apply_async(call, task_id="job")
    else:
        options = {"message_id": "job", "delay": 3_600_000}
        dramatiq.enqueue(backend.broker, Count, str(tmp_path / "lines"), 2, options=options)
        joining = backend.queue.actor.message_with_options(args=tuple(call))
        backend.broker.enqueue(joining.copy(message_id="job"))
    backend.enqueue(Count, str(tmp_path / "after"), 1, job_id="after")
    backend.work(lambda: backend.queue.tickets.read("after")["state"] == "over")
    assert backend.queue.tickets.read("job")["state"] in {"waiting", "reserved"}
    assert not (tmp_path / "lines").exists()


def test_celery_imports_a_job_from_the_folder_of_its_worker(
    real_redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module in the folder where a worker was started is found, as Celery finds the module of its app there."""
    (tmp_path / "far_jobs.py").write_text(
        "from harness import IterationJob, items\n\n\n"
        "class Far(IterationJob):\n"
        "    def build_enumerator(self, *, cursor):\n        return items([0], cursor=cursor)\n\n"
        "    def each_iteration(self, item):\n        pass\n"
    )
    backend = OnCelery(real_redis)
    monkeypatch.chdir(tmp_path)
    backend.queue.task.apply_async(["far_jobs:Far", [], {}], task_id="job")
    backend.work(lambda: backend.queue.tickets.read("job")["state"] == "over")
    sys.modules.pop("far_jobs")
    progress = backend.progress("job")
    assert progress is not None
    assert progress.done == 1
