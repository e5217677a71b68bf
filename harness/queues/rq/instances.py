"""Instances of a parallel run as RQ jobs: ``<id>-0``, ``<id>-1``, … and the job ``<id>`` that started them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rq import Queue, Retry
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer
from rq.utils import utcformat

from harness.errors import UsageError
from harness.job import find_stored
from harness.queues.calls import check_call, more_of
from harness.queues.connections import check_connection
from harness.queues.rq import strays
from harness.queues.rq.groups import add_to_group
from harness.queues.rq.places import PERFORM, fetch, is_ours
from harness.queues.rq.strays import OVER
from harness.sources.parallel import SliceTable, check_instances
from harness.stores.rq_meta import RQMetaStore

if TYPE_CHECKING:
    from redis import Redis


def enqueue_of(job: RQJob) -> str:
    """Return the identity of a job's enqueue: different for each enqueue, the same for its retries.

    RQ keeps the creation time of a job in retries, requeues and repeats. The number of remaining repeats
    identifies a repeat. An instance belongs to the enqueue of the job that started it; empty if an older
    release started it.
    """
    more = _more(job)
    if "instance" in more:
        return str(more.get("round", ""))
    repeats = "" if job.repeats_left is None else job.repeats_left
    return f"{utcformat(job.created_at)}/{repeats}"


def scale(connection: Redis, job_id: str, instances: int) -> None:
    """Change the number of instances of a parallel run.

    Surplus instances end after their current slice. New ones go into the queue of the first.

    :param job_id: id of the job that was enqueued. :raises UsageError: if it is not a parallel run.
    """
    check_connection(connection)
    check_instances(instances)
    model = fetch(connection, job_id) or fetch(connection, f"{job_id}-0")
    if model is None:
        raise UsageError(
            f"job {job_id} is not in RQ, and neither is its first instance, which is copied for others"
        )
    if not is_ours(model):
        raise UsageError(f"job {model.id} is not a ContinuableJob or IterationJob")
    check_call(*model.args[:4])
    store = find_stored(model.args[0]).progress_store() or RQMetaStore(connection)
    # Crash between the two: the numbers are assigned but unused. Their slices are free for all others, and
    # the next call starts further instances.
    progress = store.load(job_id)
    round_id = enqueue_of(model) if progress is None or "instance" in _more(model) else progress.round_id
    new = SliceTable.change(store, job_id, lambda table: table.resize(instances), round_id=round_id)
    for number in new:
        spawn(model, job_id, number, list(model.args[:3]), round_id=round_id)


def _more(job: RQJob) -> dict[str, Any]:
    return more_of(job.args)


def spawn(model: RQJob, run_id: str, number: int, call: list[Any], *, round_id: str) -> None:
    """Enqueue an instance like *model*, unless it exists.

    Crash before it: the job that starts it runs again. Lost answer: the instance exists the next time.

    :raises UsageError: if an earlier round of the job has an unfinished instance of this number.
    """
    connection = model.connection
    found = fetch(connection, f"{run_id}-{number}")
    if found is not None and enqueue_of(found) == round_id:
        return
    if found is not None and found.get_status(refresh=False) not in OVER:
        raise UsageError(
            f"job {found.id} of an earlier round of {run_id} is {found.get_status(refresh=False).value}; wait until "
            "it has ended, or enqueue the job under another id"
        )
    more = {"instance": [run_id, number], **({"round": round_id} if round_id else {})}
    retry = Retry(max=model.retries_left, interval=model.retry_intervals or 0) if model.retries_left else None
    queue = Queue(model.origin, connection=connection, serializer=JSONSerializer)
    with connection.pipeline() as pipeline:
        job = queue.enqueue_call(
            PERFORM,
            args=(*call, more),
            job_id=f"{run_id}-{number}",
            timeout=model.timeout,  # type: ignore[arg-type]  # RQ says float where it reads, int where it writes
            result_ttl=model.result_ttl,
            failure_ttl=model.failure_ttl,
            retry=retry,
            description=f"{model.description} [{number}]",
            pipeline=pipeline,
        )
        strays.add(pipeline, job.id)
        if model.group_id:
            add_to_group(pipeline, model.group_id, job, new=True)
        pipeline.execute()
