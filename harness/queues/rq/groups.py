"""RQ's groups, with jobs of this package in them.

RQ adds jobs to a group only when it enqueues them itself. A job is in a group if its id is in the group's
set; its hash names one group, from which ``job.delete()`` removes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rq.group import Group

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline
    from rq.job import Job as RQJob


def add_to_group(connection: Pipeline | Redis, name: str, job: RQJob, *, new: bool) -> None:
    """Add a job to an RQ group.

    :param new: whether the job's hash is written in the same transaction, so that it names the group.
    """
    connection.sadd(Group.get_key(name), job.id)
    connection.sadd(Group.REDIS_GROUP_KEY, name)
    if new:
        job.group_id = name
        connection.hset(job.key, "group_id", name)
