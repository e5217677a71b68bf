"""The instances of a parallel run as RQ jobs: ``<id>-0``, ``<id>-1``, … beside the job that started them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rq import Queue, Retry
from rq.exceptions import NoSuchJobError
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer

from harness.errors import UsageError
from harness.execution import Family
from harness.job import find
from harness.parallel import Division, check_instances
from harness.queues.rq.connections import check_connection
from harness.queues.rq.requests import PERFORM
from harness.stores.rq_meta import RQMetaStore

if TYPE_CHECKING:
    from redis import Redis


def family_of(job: RQJob, call: list[Any], more: dict[str, Any]) -> Family:
    """Return what an execution of *job* needs to know of a parallel run, should it be one."""
    family, instance = more.get("instance", (job.id, None))
    return Family(family, instance, lambda number: _spawn(job, family, number, call))


def scale(connection: Redis, job_id: str, instances: int) -> None:
    """Have a parallel run go on with more or fewer instances.

    Those that are too many end with the slice that they are at. New ones go into the queue of the first.

    :param job_id: of the job that was enqueued.
    :raises UsageError: if it is no parallel run.
    """
    check_connection(connection)
    check_instances(instances)
    model = _fetch(connection, job_id) or _fetch(connection, f"{job_id}-0")
    if model is None:
        raise UsageError(f"job {job_id} is not in RQ, nor its first instance to make others like")
    path, *_ = model.args
    store = find(path).progress_store() or RQMetaStore(connection)
    # Death between the two: the numbers are given and nobody has them. Their slices are free for all others, and who
    # scales again starts further ones.
    new = Division.change(store, job_id, lambda division: division.resize(instances))
    for number in new:
        _spawn(model, job_id, number, list(model.args[:3]))


def _fetch(connection: Redis, job_id: str) -> RQJob | None:
    try:
        return RQJob.fetch(job_id, connection=connection, serializer=JSONSerializer)
    except NoSuchJobError:
        return None


def _spawn(model: RQJob, family: str, number: int, call: list[Any]) -> None:
    """Enqueue an instance like *model*, unless it is there.

    Death before it: whoever was to start it is run again. If only the answer is lost, it is there the next time.
    """
    connection = model.connection
    if _fetch(connection, f"{family}-{number}") is not None:
        return
    retry = Retry(max=model.retries_left, interval=model.retry_intervals or 0) if model.retries_left else None
    Queue(model.origin, connection=connection, serializer=JSONSerializer).enqueue_call(
        PERFORM,
        args=(*call, {"instance": [family, number]}),
        job_id=f"{family}-{number}",
        timeout=model.timeout,  # type: ignore[arg-type]  # RQ says float where it reads, int where it writes
        result_ttl=model.result_ttl,
        failure_ttl=model.failure_ttl,
        retry=retry,
        description=f"{model.description} [{number}]",
    )
