"""Tickets: which delivery counts, and what a sweep sends again."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from harness.lab.queue_jobs import Count
from harness.queues.holding import Held, Sweep, new_owner, pid_of
from harness.queues.periodic import SETTING
from harness.queues.tickets import Claimed, Sending, Tickets
from harness.stops import Flag
from harness.stores.sql import SqlStore
from tests.queues.backends import OnCelery, OnDramatiq
from tests.queues.fleet import lines


@pytest.fixture
def tickets(real_redis: Redis) -> Tickets:
    """Return tickets with one job that was sent under the number 1, and is waiting."""
    found = Tickets(real_redis, "test", stray_seconds=100)
    opened = found.open("job", "round", "digest", "message")
    assert (opened.n, opened.state) == (1, "sending")
    found.sent("job", 1)
    return found


def claimed(tickets: Tickets, n: int = 1, owner: str = "me") -> Claimed:
    """Claim the job."""
    claim = tickets.claim("job", n, owner)
    assert isinstance(claim, Claimed), claim
    return claim


def due_now(tickets: Tickets, job_id: str = "job") -> None:
    """Let the time of a ticket pass."""
    tickets.connection.zadd("harness:due:test", {job_id: 1})


def test_a_second_delivery_is_busy_while_the_first_runs(tickets: Tickets) -> None:
    """Of two deliveries with the same number, the first runs and the second is dropped."""
    claimed(tickets)
    assert tickets.claim("job", 1, "other") == "busy"


def test_an_old_number_is_stale(tickets: Tickets) -> None:
    """After the job was given back, its earlier message is out of date."""
    requeued = tickets.requeue(claimed(tickets))
    assert requeued is not None
    assert requeued[0].n == 2
    assert tickets.claim("job", 1, "other") == "stale"
    assert claimed(tickets, 2).executions == 0


def test_a_completed_job_is_over(tickets: Tickets) -> None:
    """A message that comes after the end does nothing, with its number or without one."""
    claim = claimed(tickets)
    assert tickets.close("job", "completed", claim.owner)
    assert tickets.claim("job", 1, "other") == "over"
    assert tickets.claim("job", 0, "other") == "over"
    assert tickets.open_jobs() == []


def test_a_failed_job_that_is_delivered_again_runs(tickets: Tickets) -> None:
    """A dead letter that was sent again by hand runs: the job continues at its cursor."""
    first = claimed(tickets)
    tickets.close("job", "failed", first.owner)
    assert claimed(tickets, owner="other").owner == "other"


def test_an_enqueue_joins_a_job_that_is_not_over(tickets: Tickets) -> None:
    """A second enqueue gets no number and the round of the first; after the end it gets the next number."""
    joined = tickets.open("job", "another", "digest", "message")
    assert (joined.n, joined.round, joined.state) == (0, "round", "waiting")
    tickets.close("job", "completed")
    assert tickets.open("job", "another", "digest", "message").n == 2


def test_a_claim_whose_lease_is_over_is_lost(tickets: Tickets) -> None:
    """The sweep takes a job whose lease is over; the slow owner can neither requeue, park nor close it."""
    claim = claimed(tickets)
    due_now(tickets)
    sending = tickets.take("job")
    assert sending == Sending("job", 2, "message")
    assert not tickets.owned(claim)
    assert tickets.requeue(claim) is None
    assert not tickets.park(claim)
    assert not tickets.close("job", "completed", claim.owner)
    assert tickets.renew([("job", claim.owner)]) == {claim.owner}


def test_two_sweeps_send_a_job_once(tickets: Tickets) -> None:
    """Of two sweeps that find the same job due, one sends it."""
    claimed(tickets)
    due_now(tickets)
    assert tickets.due() == ["job"]
    assert tickets.take("job") is not None
    assert tickets.take("job") is None


def test_a_message_that_waits_for_long_is_sent_under_its_number(tickets: Tickets) -> None:
    """A copy of a message that may be lost has the same number, so that the job keeps its place in the queue."""
    due_now(tickets)
    sending = tickets.take("job")
    assert sending == Sending("job", 1, "message")
    claimed(tickets)
    assert tickets.claim("job", 1, "copy") == "busy"


def test_a_reserved_job_of_a_crashed_worker_is_sent_again(tickets: Tickets) -> None:
    """A message that a crashed worker had received, and not started, is sent again with the next number."""
    assert tickets.received([("job", 1, "worker")]) == [True]
    assert tickets.take("job") is None
    due_now(tickets)
    sending = tickets.take("job")
    assert sending is not None
    assert sending.n == 2
    assert tickets.claim("job", 1, "late") == "stale"


def test_a_message_that_was_never_confirmed_is_sent(real_redis: Redis) -> None:
    """A sender that crashed between the ticket and the message costs a lease, and no job."""
    tickets = Tickets(real_redis, "test")
    tickets.open("job", "round", "digest", "message")
    due_now(tickets)
    sent: list[Sending] = []
    sweep = Sweep(tickets, sent.append)
    assert sweep.turn() == ["job"]
    assert [each.n for each in sent] == [2]
    assert tickets.read("job")["state"] == "waiting"
    assert sweep.turn() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "running", "n": "many"},
        {"state": "waiting", "n": "1", "eta": "soon"},
        {"n": "1"},
        {"state": "x"},
    ],
)
def test_a_bad_ticket_strands_no_other_job(tickets: Tickets, fields: dict[Any, Any]) -> None:
    """A ticket that holds something else is skipped by the sweep, which sends the others."""
    tickets.connection.hset("harness:ticket:bad", mapping=fields)
    due_now(tickets, "bad")
    due_now(tickets)
    sent: list[str] = []
    Sweep(tickets, lambda sending: sent.append(sending.job_id)).turn()
    assert "job" in sent
    assert "bad" not in tickets.due()


def test_a_ticket_of_another_type_strands_no_other_job(tickets: Tickets) -> None:
    """A key of another type is skipped by the sweep, and left as it is."""
    tickets.connection.set("harness:ticket:bad", "text")
    due_now(tickets, "bad")
    due_now(tickets)
    sent: list[str] = []
    Sweep(tickets, lambda sending: sent.append(sending.job_id)).turn()
    assert sent == ["job"]
    assert tickets.connection.get("harness:ticket:bad") == b"text"


def test_a_parked_job_waits_for_its_resumption(tickets: Tickets) -> None:
    """A parked job is never due; it is resumed once."""
    assert tickets.park(claimed(tickets))
    assert tickets.claim("job", 1, "other") == "stale"
    assert tickets.due() == []
    assert tickets.resume("job") == Sending("job", 2, "message")
    assert tickets.resume("job") is None


def test_a_delay_is_kept(tickets: Tickets) -> None:
    """A job that is given back with a delay is sent with what is left of it."""
    requeued = tickets.requeue(claimed(tickets), delay=50, queue="slow")
    assert requeued is not None
    assert requeued[0].queue == "slow"
    assert requeued[0].delay == pytest.approx(50, abs=10)


def test_a_lost_lease_stops_the_job(tickets: Tickets, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process whose lease was taken hears of it at its next renewal."""
    monkeypatch.setenv(SETTING, "0.3")
    claim, lost, held = claimed(tickets), Flag(), Held(tickets)
    heard: list[bool] = []
    lost.attach(lambda: heard.append(True))
    due_now(tickets)
    tickets.take("job")
    held.add("job", claim.owner, lost)
    beat = held._beat
    assert beat is not None
    held._renew()
    held.close()
    assert lost() == "lease lost"
    assert heard


def due_in(tickets: Tickets) -> float:
    """Return the time of the ticket, in seconds of the server's clock."""
    score = tickets.connection.zscore("harness:due:test", "job")
    assert score is not None
    return float(score)


def test_the_loss_of_an_earlier_lease_leaves_the_later_one(tickets: Tickets) -> None:
    """A process that receives a job again keeps that lease when it hears that its earlier one is lost."""
    held, earlier, later = Held(tickets), Flag(), Flag()
    for owner, lost in (("earlier", earlier), ("later", later)):
        assert tickets.received([("job", 1, owner)]) == [True]
        held.add("job", owner, lost)
    held._renew()
    assert earlier() == "lease lost"
    assert not later()
    due_now(tickets)
    held._renew()
    held.close()
    assert due_in(tickets) > 1


def test_a_lease_on_a_message_that_was_forgotten_is_renewed_no_more(tickets: Tickets) -> None:
    """A message that its worker has forgotten is due for a sweep when its lease is over."""
    held, owner = Held(tickets), new_owner()
    assert tickets.received([("job", 1, owner)]) == [True]
    held.add("job", owner)
    held.forget("job", owner)
    due_now(tickets)
    held._renew()
    held.close()
    assert due_in(tickets) == 1
    sending = tickets.take("job")
    assert sending is not None
    assert sending.n == 2


def test_a_sweep_that_is_started_twice_has_one_thread(tickets: Tickets) -> None:
    """A worker that has found its broker again goes on with the thread that it has."""
    sweep = Sweep(tickets, lambda _: None)
    before = threading.active_count()
    sweep.start()
    sweep.start()
    started = threading.active_count() - before
    sweep.close()
    assert started == 1


def test_a_mark_names_its_process() -> None:
    """The mark of a claim has the process id in it, and is another one each time."""
    assert pid_of(new_owner()) == os.getpid()
    assert new_owner() != new_owner()
    assert pid_of("nonsense") is None


@pytest.mark.parametrize("kind", [OnCelery, OnDramatiq])
def test_a_sender_that_cannot_reach_redis_sends_all_the_same(
    kind: Any, real_redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message without a number, as of a sender that cannot reach Redis, gets its ticket from the worker.

    When its job is over, a further one under its id is a new round, as with a number.
    """
    backend, call = kind(real_redis), [Count.path(), [str(tmp_path / "lines"), 2], {}]

    def refused(*_: Any, **__: Any) -> Any:
        raise RedisConnectionError("refused")

    for rounds in (1, 2):
        with monkeypatch.context() as patched:
            patched.setattr(backend.queue.tickets, "open", refused)
            if kind is OnCelery:
                backend.queue.task.apply_async(call, task_id="job")
            else:
                message = backend.queue.actor.message_with_options(args=tuple(call))
                backend.broker.enqueue(message.copy(message_id="job"))
        backend.work(
            lambda rounds=rounds: (
                lines(tmp_path / "lines") == ["0", "1"] * rounds
                and backend.queue.tickets.read("job").get("state") == "over"
            )
        )
        assert backend.progress("job").done == 2


@pytest.mark.parametrize("kind", [OnCelery, OnDramatiq])
def test_progress_may_be_kept_in_a_database(kind: Any, real_redis: Redis, tmp_path: Any) -> None:
    """With the option store, jobs keep their progress in a database."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/progress.db")
    SqlStore(engine).create()
    backend = kind(real_redis)
    backend.queue._store = lambda: SqlStore(engine)
    backend.enqueue(Count, str(tmp_path / "lines"), 3, job_id="job")
    backend.work(lambda: backend.queue.tickets.read("job").get("state") == "over")
    progress = SqlStore(engine).load("job")
    assert progress is not None
    assert progress.done == 3
    engine.dispose()


def test_a_message_that_is_enqueued_again_begins_a_new_round(real_redis: Redis, tmp_path: Path) -> None:
    """Dramatiq's message that was enqueued once runs again when it is enqueued after the end of its job."""
    backend = OnDramatiq(real_redis)
    message = backend.enqueue(Count, str(tmp_path / "lines"), 2, job_id="job")
    for rounds in (1, 2, 3):
        backend.work(lambda: backend.queue.tickets.read("job").get("state") == "over")
        assert (tmp_path / "lines").read_text().split() == ["0", "1"] * rounds
        assert backend.queue.tickets.read("job")["outcome"] == "completed"
        message = backend.broker.enqueue(message)


def test_a_message_that_is_enqueued_twice_runs_once(real_redis: Redis, tmp_path: Path) -> None:
    """Dramatiq's message that is enqueued again before the end of its job joins it."""
    backend = OnDramatiq(real_redis)
    backend.broker.enqueue(backend.enqueue(Count, str(tmp_path / "lines"), 2, job_id="job"))
    backend.enqueue(Count, str(tmp_path / "after"), 1, job_id="after")
    backend.work(
        lambda: all(backend.queue.tickets.read(each).get("state") == "over" for each in ("job", "after"))
    )
    assert (tmp_path / "lines").read_text().split() == ["0", "1"]
