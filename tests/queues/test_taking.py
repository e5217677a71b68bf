"""Workers take jobs so that each job is always in a list, and wait for several queues at the same time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
from redis import BlockingConnectionPool, ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue
from rq.command import send_shutdown_command
from rq.exceptions import StopRequested
from rq.job import Job as RQJob
from rq.suspension import resume, suspend
from rq.utils import as_text

from harness.queues.rq import SimpleWorker, enqueue
from harness.queues.rq.taking import Taken, Taker
from tests.jobs import DONE
from tests.worker_jobs import UntilReleased
from tests.workers import ALL, OURS, PATIENCE, Workers, release, wait_for_worker

NAMES = ["high", "default", "low"]


@pytest.fixture
def queues(broker: Redis) -> list[Queue]:
    """Return three queues, the most important first."""
    return [Queue(name, connection=broker, serializer="json") for name in NAMES]


def in_lists(queues: list[Queue]) -> tuple[list[str], list[str]]:
    """Return the ids in the queues and in their intermediate queues."""
    waiting = [job_id for queue in queues for job_id in queue.job_ids]
    return waiting, [job_id for queue in queues for job_id in queue.intermediate_queue.get_job_ids()]


@contextmanager
def once_it_waits(broker: Redis, count: int, action: object) -> Iterator[None]:
    """Call *action* from another thread as soon as *count* clients wait in a blocking command."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() and broker.info("clients")["blocked_clients"] != count:
            over.wait(0.002)
        if not over.is_set():
            action()  # type: ignore[operator]

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_the_first_job_of_the_first_queue_is_taken(broker: Redis, queues: list[Queue]) -> None:
    """Queues are tried in order, and a job that was taken is in its queue's intermediate queue."""
    for number, queue in reversed(list(enumerate(queues))):
        broker.rpush(queue.key, f"{number}a", f"{number}b")
    taker = Taker(broker)
    taken = [taker.first(queues) for _ in range(7)]
    assert [each and (each.queue.name, each.job_id) for each in taken] == [
        *((name, f"{number}{letter}".encode()) for number, name in enumerate(NAMES) for letter in "ab"),
        None,
    ]
    assert in_lists(queues) == ([], ["0a", "0b", "1a", "1b", "2a", "2b"])


@pytest.mark.parametrize("number", range(3))
def test_a_job_of_any_queue_ends_the_wait(broker: Redis, queues: list[Queue], number: int) -> None:
    """A worker waits for all its queues together, and leaves no waiting client behind."""
    with once_it_waits(broker, 3, lambda: broker.rpush(queues[number].key, "7")):
        assert Taker(broker).wait(queues, PATIENCE, nullcontext) == Taken(queues[number], b"7")
    assert broker.info("clients")["blocked_clients"] == 0
    assert in_lists(queues) == ([], ["7"])


def test_of_two_jobs_the_less_important_one_is_returned(broker: Redis, queues: list[Queue]) -> None:
    """Two queues that get a job in the same moment: the worker takes one, the other goes back to the front."""

    def both() -> None:
        with broker.pipeline() as pipeline:
            pipeline.rpush(queues[2].key, "low", "behind")
            pipeline.rpush(queues[0].key, "high")
            pipeline.execute()

    with once_it_waits(broker, 3, both):
        assert Taker(broker).wait(queues, PATIENCE, nullcontext) == Taken(queues[0], b"high")
    assert in_lists(queues) == (["low", "behind"], ["high"])


def test_a_wait_without_a_job_ends(broker: Redis, queues: list[Queue]) -> None:
    """A wait that ends without a job takes nothing and leaves nothing."""
    assert Taker(broker).wait(queues, 0.01, nullcontext) is None
    assert in_lists(queues) == ([], [])


def test_a_signal_handler_that_raises_loses_no_job(broker: Redis, queues: list[Queue]) -> None:
    """A job that arrives in the moment of the signal is in its queue afterwards."""

    @contextmanager
    def interrupted() -> Iterator[None]:
        broker.rpush(queues[1].key, "7")
        raise StopRequested
        yield

    with pytest.raises(StopRequested):
        Taker(broker).wait(queues, PATIENCE, interrupted)
    assert in_lists(queues) == (["7"], [])
    assert broker.info("clients")["blocked_clients"] == 0


def test_a_wait_whose_connections_end_takes_nothing(broker: Redis, queues: list[Queue]) -> None:
    """The worker learns of it as of any lost connection."""
    with (
        once_it_waits(broker, 3, lambda: broker.client_kill_filter(_type="normal", skipme=True)),
        pytest.raises(RedisConnectionError),
    ):
        Taker(broker).wait(queues, PATIENCE, nullcontext)
    assert in_lists(queues) == ([], [])


def test_without_the_right_to_unblock_connections_are_closed(
    broker: Redis, redis_url: str, queues: list[Queue]
) -> None:
    """An access rule without CLIENT UNBLOCK costs a connection, and no job."""
    broker.acl_setuser("few", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-client|unblock"])
    try:
        with Redis.from_url(redis_url, username="few", password="") as connection:
            own = [Queue(name, connection=connection, serializer="json") for name in NAMES]
            with once_it_waits(broker, 3, lambda: broker.rpush(queues[1].key, "7")):
                assert Taker(connection).wait(own, PATIENCE, nullcontext) == Taken(own[1], b"7")
    finally:
        broker.acl_deluser("few")
    assert in_lists(queues) == ([], ["7"])


@pytest.mark.parametrize("pool_class", [ConnectionPool, BlockingConnectionPool])
@pytest.mark.parametrize("connections", [2, 5, 100])
def test_a_small_pool_is_enough(
    broker: Redis, redis_url: str, queues: list[Queue], pool_class: type[ConnectionPool], connections: int
) -> None:
    """If a worker has fewer connections than queues, it waits in short turns and takes jobs of all queues."""
    pool = pool_class.from_url(redis_url, max_connections=connections)
    with Redis(connection_pool=pool) as connection:
        own = [Queue(name, connection=connection, serializer="json") for name in NAMES]
        taker = Taker(connection)
        assert taker.wait(own, 0.01, nullcontext) is None
        broker.rpush(queues[2].key, "7")
        assert (taker.first(own) or taker.wait(own, 0.01, nullcontext)) == Taken(own[2], b"7")
    pool.disconnect()


def test_a_job_is_returned_once(broker: Redis, queues: list[Queue]) -> None:
    """A second attempt, as after a lost answer, finds it in its queue."""
    broker.rpush(queues[0].key, "1", "2")
    taker = Taker(broker)
    taken = taker.first(queues)
    assert taken is not None
    taker.give_back(taken)
    taker.give_back(taken)
    assert in_lists(queues) == (["1", "2"], [])


@pytest.mark.parametrize("entry", [b"gone", b"\xff\xfe"])
def test_an_entry_without_a_job_is_dropped(queues: list[Queue], entry: bytes) -> None:
    """The id of a deleted job, or bytes that are no id, stay in no list, and the job behind them is done."""
    queues[0].connection.rpush(queues[0].key, entry)
    job = queues[2].enqueue("tests.jobs.plain", 3)
    worker = SimpleWorker(queues, connection=queues[0].connection, commands=False)
    worker.work(burst=True, logging_level="CRITICAL")
    assert job.is_finished
    assert in_lists(queues) == ([], [])


@pytest.mark.process
@pytest.mark.parametrize("worker_class", ALL)
@pytest.mark.parametrize("ask", ["SIGTERM", "SIGINT", "shutdown command"])
def test_a_worker_that_waits_for_several_queues_leaves(
    broker: Redis, rq_workers: Workers, worker_class: str, ask: str
) -> None:
    """A signal, or RQ's command, ends the wait of an idle worker; its turn would last a minute."""
    worker = rq_workers.start(worker_class, "high", "default", queue="low")
    wait_for_worker(broker, "state", b"idle")
    while broker.info("clients")["blocked_clients"] < 3:
        assert worker.poll() is None
    if ask == "shutdown command":
        (name,) = broker.smembers("rq:workers")
        send_shutdown_command(broker, as_text(name).removeprefix("rq:worker:"))
    else:
        worker.send_signal(getattr(signal, ask))
    assert worker.wait(PATIENCE) == 0
    assert not broker.smembers("rq:workers")


@pytest.mark.process
def test_a_job_that_a_killed_worker_of_several_queues_has_taken_is_recovered(
    broker: Redis, queues: list[Queue], rq_workers: Workers
) -> None:
    """SIGKILL just after a job left its queue: the next worker does it."""
    job = enqueue(queues[2], UntilReleased)
    worker = rq_workers.start("tests.worker_jobs.KilledAtDequeue", "high", queue="low", seconds=3)
    assert worker.wait(PATIENCE) == -signal.SIGKILL
    assert in_lists(queues) == ([], [job.id])
    release(broker, job.id)
    worker = rq_workers.start(OURS, "--max-jobs", "1", "high", queue="low", seconds=3)
    assert worker.wait(PATIENCE) == 0
    assert RQJob.fetch(job.id, connection=broker, serializer=queues[0].serializer).is_finished


def test_a_worker_works_again_after_a_signal(queue: Queue) -> None:
    """``work()`` that a signal has ended can be called again, and does jobs."""
    worker = Signalled([queue], connection=queue.connection, commands=False)
    worker.work(logging_level="CRITICAL")
    job = queue.enqueue("tests.jobs.plain", 3)
    assert worker.work(burst=True, logging_level="CRITICAL")
    assert job.is_finished


class Signalled(SimpleWorker):
    """Gets a signal when it begins to wait."""

    def procline(self, message: str) -> None:
        """Send the signal, the first time."""
        if not DONE:
            DONE.append("signalled")
            os.kill(os.getpid(), signal.SIGTERM)
        super().procline(message)  # type: ignore[no-untyped-call]


@pytest.mark.process
def test_a_suspended_worker_leaves(broker: Redis, jobs_queue: Queue, rq_workers: Workers) -> None:
    """A signal ends the wait for ``rq resume``."""
    worker = rq_workers.start()
    wait_for_worker(broker, "state", b"idle")
    suspend(broker)
    try:
        jobs_queue.enqueue("tests.jobs.plain", 3)
        wait_for_worker(broker, "state", b"suspended")
        worker.terminate()
        assert worker.wait(PATIENCE) == 0
    finally:
        resume(broker)
