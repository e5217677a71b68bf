"""Progress of jobs on RQ beside the meta of the application."""

from __future__ import annotations

import pytest
from redis import Redis

from harness.errors import CorruptProgress, UnsupportedProgress
from harness.stores.rq_meta import RQMetaStore
from tests.stores.test_stores import enqueued


def test_to_forget_a_job_that_is_gone_makes_none(redis: Redis) -> None:
    """rq_meta leaves no key where there was none."""
    RQMetaStore(redis).delete("17")
    assert redis.keys() == []


@pytest.mark.parametrize(
    ("meta", "error"),
    [
        (b'{"continuation": ', CorruptProgress),
        (b"[" * 100_000 + b'"continuation"', CorruptProgress),
        (b'{"continuation": 3}', CorruptProgress),
        (b'{"continuation": "{\\"version\\": 99}"}', UnsupportedProgress),
    ],
)
def test_meta_that_cannot_be_used_is_refused_and_kept(
    redis: Redis, meta: bytes, error: type[Exception]
) -> None:
    """rq_meta leaves what an older release may have stored there as it is."""
    job = enqueued(redis, "17")
    redis.hset(job.key, "meta", meta)
    with pytest.raises(error):
        RQMetaStore(redis).claim("17")
    assert redis.hget(job.key, "meta") == meta


@pytest.mark.parametrize("meta", [b"\x80\x05N.", b"[]", b"[" * 100_000, b"3"])
def test_meta_of_the_applications_own_is_no_matter(redis: Redis, meta: bytes) -> None:
    """A pickle, which is never loaded, or anything else without progress in it, neither helps nor hinders."""
    job = enqueued(redis, "17")
    redis.hset(job.key, "meta", meta)
    store = RQMetaStore(redis)
    store.save(store.claim("17"))
    assert redis.hget(job.key, "meta") == meta
