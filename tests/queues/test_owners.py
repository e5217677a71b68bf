"""Whatever an application does to a job, and whenever: it ends, fails with a reason, or is gone on purpose."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq.utils import as_text

from harness.queues.rq.keys import LEASES, OPEN
from tests.examples import examples
from tests.jobs import DONE
from tests.meddling import ACTIONS, Application, Watched, settle, work

COMMANDS = 130
"""Number of commands in which an undisturbed worker does the job, and some more."""


@examples(25)
@given(
    before=st.lists(st.sampled_from([each for each in ACTIONS if each != "die"]), max_size=2),
    during=st.lists(st.tuples(st.integers(1, COMMANDS), st.sampled_from(ACTIONS)), max_size=6),
)
def test_no_job_is_stranded(real_redis: Redis, before: list[str], during: list[tuple[int, str]]) -> None:
    """No job is stranded if the application acts, or the worker crashes, before any command of the worker."""
    real_redis.flushdb()
    DONE.clear()
    application = Application(real_redis, 4)
    for action in before:
        application.do(action)
    Watched.plan.clear()
    for number, action in during:
        Watched.plan.setdefault(number, []).append(lambda action=action: application.do(action))  # type: ignore[misc]
    work(application)
    settle(application)
    judge(application)


def judge(application: Application) -> None:
    """Assert that the job is over, and that nothing of it is left behind."""
    connection, queue, job = application.connection, application.queue, application.copies[0]
    status = as_text(connection.hget(job.key, "status") or "gone")
    if status == "finished":
        wholes = [{(name, number) for number in range(numbers)} for name, numbers in application.calls]
        assert application.excused or any(set(DONE) >= whole for whole in wholes)
    elif status == "failed":
        result = job.latest_result()
        assert result is not None
        assert result.exc_string
    else:  # an old copy may have been saved since
        assert application.excused, f"{status}, in no queue and no registry"
    assert not queue.job_ids
    assert not queue.started_job_registry.get_job_and_execution_ids(cleanup=False)
    assert not connection.exists(LEASES)
    assert not connection.exists(OPEN), "an open job is looked for until it is over"
