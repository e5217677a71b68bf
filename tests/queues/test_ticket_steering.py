"""Jobs of Celery and Dramatiq that are over go back into their queue; parallel ones are scaled; workers are listed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from harness import IterationJob, items
from harness.errors import UsageError
from harness.lab.queue_jobs import Count
from harness.lab.queue_suite import wait_until
from harness.monitor import Monitor
from harness.queues.history import history
from harness.queues.ticket_jobs import ticket_of
from harness.queues.watching import Watcher
from harness.sources.enumerators import Enumerator
from harness.sources.parallel import parallel_items
from harness.web.actions import act
from harness.web.enqueuing import enqueue as enqueue_form
from harness.web.forms import PREFIX, BadForm
from tests.commands import harness, one_line
from tests.jobs import DONE, ThreeSteps
from tests.queues.backends import OnCelery, OnDramatiq
from tests.queues.fleet import PATIENCE, Fleet, wait_for_lines

QUEUES = pytest.mark.parametrize("kind", [OnCelery, OnDramatiq])


@pytest.fixture(autouse=True)
def _nothing_has_failed() -> None:
    """Forget what other tests have done."""
    FailsOnce.failed = False


class FailsOnce(IterationJob):
    """Fails in its eighth number, the first time."""

    resume_errors_after_advancing = False
    failed = False

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        return items(range(20), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do one number, or fail."""
        if item == 7 and not FailsOnce.failed:
            FailsOnce.failed = True
            raise RuntimeError("not this time")
        DONE.append(item)


class FailsThrice(FailsOnce):
    """Fails in its eighth number, three times."""

    tries: list[int] = []  # noqa: RUF012 - of the test

    def each_iteration(self, item: int) -> None:
        """Do one number, or fail."""
        if item == 7:
            FailsThrice.tries.append(item)
            if len(FailsThrice.tries) < 4:
                raise RuntimeError("not this time")


class Cancelled(FailsOnce):
    """Is asked to end before it starts."""

    failed = True


class Parallel(IterationJob):
    """Does numbers in one instance at first, once it may."""

    may = threading.Event()

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Share the numbers."""
        return parallel_items(range(40), instances=1, cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do one number."""
        assert Parallel.may.wait(PATIENCE)
        DONE.append(item)


def over(backend: Any, *job_ids: str) -> Callable[[], bool]:
    """Return a condition that holds when jobs are over."""
    return lambda: all(
        backend.queue.tickets.read(each).get("state") == "over" for each in job_ids or ("job",)
    )


@QUEUES
@pytest.mark.parametrize("by", ["queue", "page"])
def test_a_failed_job_goes_on_at_its_cursor(kind: Any, by: str, real_redis: Redis) -> None:
    """A requeued job repeats no item, and is refused while it is not over or once it is finished."""
    backend = kind(real_redis)
    backend.enqueue(FailsOnce, job_id="job")
    backend.work(over(backend))
    assert backend.queue.tickets.read("job")["outcome"] == "failed"
    if by == "queue":
        backend.queue.requeue("job")
    else:
        assert "is back in queue" in act(real_redis, "requeue", "job", "ada")
    with pytest.raises(
        UsageError, match=r"is not over: queued; only a failed or cancelled job can be requeued"
    ):
        backend.queue.requeue("job")
    backend.work(over(backend))
    assert list(range(20)) == DONE
    with pytest.raises(UsageError, match="is finished; enqueue it again under its id"):
        backend.queue.requeue("job")
    with pytest.raises(UsageError, match="there is no job 'nothing'"):
        backend.queue.requeue("nothing")


@QUEUES
@pytest.mark.parametrize("by", ["requeue", "fork"])
def test_a_requeued_job_has_all_its_retries_again(kind: Any, by: str, real_redis: Redis) -> None:
    """A job that has used up its retries and is requeued or forked is retried as often as after its enqueue."""
    backend, found = kind(real_redis), list[str]()
    FailsThrice.tries = []
    backend.enqueue(FailsThrice, job_id="job", retries=1)
    backend.work(over(backend))
    assert backend.queue.tickets.read("job")["outcome"] == "failed"
    assert FailsThrice.tries == [7, 7]
    if by == "requeue":
        backend.queue.requeue("job")
    else:
        found.append(backend.queue.fork("job", cursor=6))
    backend.work(over(backend, *found))
    assert FailsThrice.tries == [7, 7, 7, 7]
    assert backend.queue.tickets.read(found[0] if found else "job")["outcome"] == "completed"


@QUEUES
def test_a_cancelled_job_goes_on_at_its_cursor(kind: Any, real_redis: Redis) -> None:
    """The request to cancel it is forgotten, and what was done is not done again."""
    backend = kind(real_redis)
    backend.enqueue(Cancelled, job_id="job")
    backend.cancel("job")
    backend.work(over(backend))
    assert backend.queue.tickets.read("job")["outcome"] == "cancelled"
    backend.queue.requeue("job")
    FailsOnce.failed = True
    backend.work(over(backend))
    assert list(range(20)) == DONE
    assert backend.queue.tickets.read("job")["outcome"] == "completed"


@QUEUES
@pytest.mark.parametrize(
    ("place", "again"),
    [
        ("load", ["load", 0, 1, 2, 3, "send"]), ("count:2", [2, 3, "send"]), ("count", [0, 1, 2, 3, "send"]),
        ("send", ["send"]),
    ],
)  # fmt: skip
def test_steps_are_done_again_from_the_place(
    kind: Any, place: str, again: list[Any], real_redis: Redis
) -> None:
    """The step and those after it are done again, those before it are not."""
    backend = kind(real_redis)
    backend.enqueue(ThreeSteps, job_id="job")
    backend.work(over(backend))
    assert DONE == ["load", 0, 1, 2, 3, "send"]
    DONE.clear()
    with pytest.raises(
        UsageError, match="rewound to step 'price'; steps that it has reached: load, count, send"
    ):
        backend.queue.rewind("job", step="price")
    assert f"rewound to {place}" in act(real_redis, "rewind", "job", "ada", place)
    backend.work(over(backend))
    assert again == DONE
    assert backend.progress("job").completed == ["load", "count", "send"]


@QUEUES
@pytest.mark.parametrize(("cursor", "first"), [(None, 0), (14, 15)])
def test_an_iteration_goes_on_after_the_cursor(kind: Any, cursor: Any, first: int, real_redis: Redis) -> None:
    """Without a cursor the iteration starts at its beginning."""
    backend = kind(real_redis)
    FailsOnce.failed = True
    backend.enqueue(FailsOnce, job_id="job")
    backend.work(over(backend))
    DONE.clear()
    backend.queue.rewind("job", cursor=cursor)
    backend.work(over(backend))
    assert list(range(first, 20)) == DONE


@QUEUES
@pytest.mark.parametrize("by", ["queue", "command"])
def test_a_paused_job_can_be_cancelled(kind: Any, by: str, real_redis: Redis, tmp_path: Path) -> None:
    """A paused job that is cancelled ends without a resumption, and does no item."""
    backend, path = kind(real_redis), tmp_path / "lines"
    backend.enqueue(Count, str(path), 5, job_id="job")
    backend.pause("job")
    backend.work(lambda: backend.queue.tickets.read("job")["state"] == "parked")
    if by == "queue":
        backend.queue.cancel("job")
    else:
        found = ticket_of(real_redis, "job")
        assert found is not None
        found.ask("cancel")
    backend.work(lambda: backend.queue.tickets.read("job")["state"] == "over")
    assert backend.queue.tickets.read("job")["outcome"] == "cancelled"
    assert not path.exists()


@QUEUES
def test_a_fork_does_a_part_again_and_the_old_job_stays(kind: Any, real_redis: Redis) -> None:
    """The new job goes on from the place under its own id; the old ticket and progress do not change."""
    backend = kind(real_redis)
    backend.enqueue(ThreeSteps, job_id="job")
    backend.work(over(backend))
    before = backend.queue.tickets.read("job"), backend.progress("job")
    DONE.clear()
    assert backend.queue.fork("job", step="count", cursor=2, new_id="again") == "again"
    with pytest.raises(UsageError, match="there is a job under the id 'again'; choose another id"):
        backend.queue.fork("job", step="count", new_id="again")
    backend.work(over(backend, "again"))
    assert DONE == [2, 3, "send"]
    forked = backend.progress("again")
    assert (forked.completed, forked.crashes) == (["load", "count", "send"], 0)
    with pytest.raises(UsageError, match="there is a job under the id 'again'"):  # also when it is over
        backend.queue.fork("job", step="send", new_id="again")
    assert (backend.queue.tickets.read("job"), backend.progress("job")) == before
    other = backend.queue.fork("again", step="send")
    backend.work(over(backend, other))
    assert DONE == [2, 3, "send", "send"]


@QUEUES
def test_a_fork_that_crashed_between_its_writes_is_done_by_a_second_call(
    kind: Any, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress without a job is used by the next call with its id."""
    backend = kind(real_redis)
    backend.enqueue(ThreeSteps, job_id="job")
    backend.work(over(backend))
    DONE.clear()
    with monkeypatch.context() as patch:
        patch.setattr(type(backend.queue.tickets), "open", died)
        with pytest.raises(KeyboardInterrupt):
            backend.queue.fork("job", step="count", cursor=1, new_id="again")
    assert backend.progress("again") is not None
    backend.queue.fork("job", step="count", cursor=3, new_id="again")
    backend.work(over(backend, "again"))
    assert DONE == [3, "send"]


def died(*_: Any, **__: Any) -> None:
    """End like a process that is interrupted before it does anything."""
    raise KeyboardInterrupt


@QUEUES
def test_a_parallel_run_gets_more_instances(kind: Any, real_redis: Redis) -> None:
    """A scaled run has more instances, which do all numbers once, and its jobs cannot be rewound."""
    backend = kind(real_redis)
    backend.enqueue(Parallel, job_id="job")
    names = [f"job-{number}" for number in range(3)]
    said: list[str] = []

    def scaled() -> bool:
        if not said and backend.queue.tickets.read("job-0").get("state") == "running":
            said.append(act(real_redis, "scale", "job", "ada", "3"))
            assert all(backend.queue.tickets.read(name) for name in names)
            Parallel.may.set()
        return over(backend, "job", *names)()

    Parallel.may.clear()
    backend.work(scaled)
    assert said == ["job job goes on with 3 instances"]
    assert sorted(DONE) == list(range(40))
    for name in ("job", "job-1"):
        with pytest.raises(UsageError, match=f"job {name} belongs to a parallel run"):
            backend.queue.rewind(name)
    with pytest.raises(UsageError, match="no ticket"):
        backend.queue.scale("nothing", 3)


@QUEUES
def test_the_form_of_the_page_enqueues_on_an_app(kind: Any, real_redis: Redis, tmp_path: Path) -> None:
    """A form's job goes to the app that the page was given, under the id and in the queue that were typed."""
    backend = kind(real_redis)
    app = backend.app if kind is OnCelery else backend.broker
    form = {"id": "job", f"{PREFIX}path": str(tmp_path / "lines"), f"{PREFIX}numbers": "3"}
    assert "job job is in the default queue of" in enqueue_form(real_redis, Count, form, "ada", app)
    assert history(real_redis, "job")[0][-1].by == "ada"
    elsewhere = {**form, "id": "slow", "queue": "slow"}
    assert enqueue_form(real_redis, Count, elsewhere, "ada", app) == "job slow is in queue slow"
    assert '"slow"' in backend.queue.tickets.read("slow")["message"]
    with pytest.raises(BadForm, match="job 'job' has another class or other arguments, and is waiting"):
        enqueue_form(real_redis, Count, form | {f"{PREFIX}numbers": "4"}, "ada", app)
    backend.work(over(backend))
    assert backend.progress("job").done == 3


@pytest.mark.parametrize("kind", ["celery", pytest.param("dramatiq", marks=pytest.mark.full)])
def test_workers_are_listed_and_jobs_go_back_by_command(
    kind: str, fleets: Callable[..., Fleet], tmp_path: Path
) -> None:
    """The monitor lists a worker with its job, no longer after it has left; commands requeue, rewind, fork."""
    path, fleet = tmp_path / "lines", fleets(kind, "redis")
    url, watcher = fleet.settings["TEST_REDIS"], Watcher(fleet.queue.connection)

    def busy() -> list[str]:
        return [each.job_id for each in watcher.look().workers if each.state == "busy" and each.job_id]

    fleet.enqueue(Count, str(path), 100_000, 0.02, job_id="job")
    fleet.start()
    wait_for_lines(path, 2)
    wait_until(lambda: busy() == ["job"], PATIENCE)
    worker = next(each for each in Monitor(watcher).refresh().workers if each.state == "busy")
    assert kind == "dramatiq" or worker.pid == fleet.pid
    assert worker.queues
    assert worker.name[:12] in harness("status", "--redis", url).output
    assert "is not over: started" in one_line(harness("requeue", "job", "--redis", url))
    harness("cancel", "job", "--redis", url)
    wait_until(lambda: fleet.state("job") == "over", PATIENCE)
    assert "have no front; leave --front out" in one_line(
        harness("requeue", "job", "--front", "--redis", url)
    )
    done = path.read_text().count("\n")
    assert harness("requeue", "job", "--redis", url).output.startswith("job job is back in queue ")
    wait_for_lines(path, done + 2)
    harness("cancel", "job", "--redis", url)
    wait_until(lambda: fleet.state("job") == "over", PATIENCE)
    fork = ("fork", "job", "--to", ":1", "--id", "forked", "--redis", url)
    assert "leave --front out" in one_line(harness(*fork, "--front"))
    assert "is in queue " in harness(*fork).output
    wait_until(lambda: fleet.state("forked") == "running", PATIENCE)
    harness("cancel", "forked", "--redis", url)
    wait_until(lambda: fleet.state("forked") == "over", PATIENCE)
    assert "is not JSON" in one_line(harness("rewind", "job", "--to", ":x", "--redis", url))
    assert "rewound to :1" in harness("rewind", "job", "--to", ":1", "--redis", url).output
    assert harness("scale", "job", "3", "--redis", url).exit_code == 2
    wait_until(lambda: path.read_text().split("\n").count("2") == 2, PATIENCE)
    fleet.signal(signal.SIGTERM)
    fleet.wait()
    assert watcher.look().workers == ()
