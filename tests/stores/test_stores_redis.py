"""Behaviour specific to the stores in Redis: TTL of progress, and lost answers."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any, ClassVar

import pytest
from redis import ConnectionPool, Redis, UnixDomainSocketConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from rq.job import Job as RQJob

from harness.errors import Superseded
from harness.stores.redis import RedisStore
from harness.stores.rq_meta import RQMetaStore
from harness.stores.watched import WatchedStore

PASSWORD = "of a user without one"  # noqa: S105


class Lossy(UnixDomainSocketConnection):
    """A connection that breaks when the answer to a transaction or a script has arrived, if asked to."""

    losing = False
    _transaction = False

    def send_packed_command(self, command: Any, *arguments: Any, **options: Any) -> None:
        """Send commands, and note whether they are a transaction."""
        parts = [command] if isinstance(command, bytes | str) else list(command)
        self._transaction = any("EXEC" in str(part) or "EVAL" in str(part) for part in parts)
        super().send_packed_command(command, *arguments, **options)  # type: ignore[no-untyped-call]

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read an answer, or lose it."""
        answer = super().read_response(*arguments, **options)
        if Lossy.losing and self._transaction and isinstance(answer, list | int):
            Lossy.losing = False
            self.disconnect()  # type: ignore[no-untyped-call]
            raise RedisConnectionError("the answer was lost")
        return answer


@pytest.fixture
def lossy(real_redis: Redis, redis_url: str) -> Redis:
    """Return a connection to the server whose transactions may lose their answer."""
    real_redis.hset(RQJob.key_for("17"), "status", "queued")
    pool = ConnectionPool(connection_class=Lossy, path=redis_url.removeprefix("unix://"))
    return Redis.from_pool(pool)


@pytest.mark.parametrize("store_class", [RedisStore, RQMetaStore])
def test_a_change_whose_answer_was_lost_is_made_again(lossy: Redis, store_class: type[WatchedStore]) -> None:
    """A save is stored, the same; a claim raises the epoch once more than anybody sees."""
    with lossy:
        store = store_class(lossy)
        Lossy.losing = True
        progress = store.claim("17")
        assert (progress.epoch, Lossy.losing) == (2, False)
        progress.step, progress.cursor = "price", 17
        Lossy.losing = True
        store.save(progress)
        assert (store.load("17"), Lossy.losing) == (progress, False)
        store.claim("17")
        Lossy.losing = True
        with pytest.raises(Superseded):
            store.save(progress)
        Lossy.losing = False


class Counting(UnixDomainSocketConnection):
    """A connection that keeps the names of the commands it sends."""

    sent: ClassVar[list[str]] = []

    def send_packed_command(self, command: Any, *arguments: Any, **options: Any) -> None:
        """Send commands, and note the first word of each."""
        parts = b"".join(each if isinstance(each, bytes) else each.encode() for each in command)
        words = re.findall(rb"\*\d+\r\n\$\d+\r\n([A-Z]+)\r\n", parts)
        Counting.sent += [word.decode() for word in words if word != b"CLIENT"]
        super().send_packed_command(command, *arguments, **options)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("store_class", [RedisStore, RQMetaStore])
def test_a_save_is_one_command(real_redis: Redis, redis_url: str, store_class: type[WatchedStore]) -> None:
    """A save is one round trip once the server knows the script, and a script that is forgotten is sent again."""
    real_redis.hset(RQJob.key_for("17"), "status", "queued")
    pool = ConnectionPool(connection_class=Counting, path=redis_url.removeprefix("unix://"))
    with Redis.from_pool(pool) as connection:
        store = store_class(connection)
        progress = store.claim("17")
        store.save(progress)
        Counting.sent.clear()
        progress.step, progress.cursor = "price", 17
        store.save(progress)
        assert Counting.sent == ["EVALSHA"]
        real_redis.script_flush()
        progress.cursor = 18
        store.save(progress)
        assert Counting.sent == ["EVALSHA", "EVALSHA", "EVAL"]
        assert store.load("17") == progress


@pytest.mark.parametrize("store_class", [RedisStore, RQMetaStore])
def test_a_server_that_refuses_scripts_is_used_without(
    real_redis: Redis, redis_url: str, store_class: type[WatchedStore]
) -> None:
    """Access rules that forbid scripts cost one refused command, and epochs hold as they do with scripts."""
    real_redis.hset(RQJob.key_for("17"), "status", "queued")
    real_redis.execute_command("ACL", "SETUSER", "plain", "on", "nopass", "~*", "+@all", "-@scripting")
    try:
        pool = ConnectionPool(
            connection_class=Counting,
            path=redis_url.removeprefix("unix://"),
            username="plain",
            password=PASSWORD,
        )
        with Redis.from_pool(pool) as connection:
            store = store_class(connection)
            progress = store.claim("17")
            Counting.sent.clear()
            for cursor in (1, 2):
                progress.step, progress.cursor = "price", cursor
                store.save(progress)
            assert [each for each in Counting.sent if each.startswith("EVAL")] == ["EVALSHA"]
            assert store.load("17") == progress
            store_class(real_redis).claim("17")
            with pytest.raises(Superseded):
                store.save(progress)
    finally:
        real_redis.execute_command("ACL", "DELUSER", "plain")


def test_a_replacement_whose_answer_was_lost_is_neither_made_nor_not(lossy: Redis) -> None:
    """A caller that tries again first reads the current shared value."""
    with lossy:
        store = RedisStore(lossy)
        Lossy.losing = True
        with pytest.raises(RedisConnectionError, match="the answer was lost"):
            store.replace("17", None, "a")
        assert store.read("17") == "a"


def test_progress_is_kept_for_a_time_after_the_last_save(redis: Redis) -> None:
    """30 days, or as long as asked, or until it is deleted."""
    key = "harness:progress:17"
    for ttl in (30 * 24 * 3600, 60):
        store = RedisStore(redis) if ttl > 60 else RedisStore(redis, ttl=ttl)
        progress = store.claim("17")
        assert ttl - 10 <= redis.ttl(key) <= ttl
        redis.expire(key, 5)
        store.save(progress)
        assert ttl - 10 <= redis.ttl(key) <= ttl
    RedisStore(redis, ttl=None).claim("17")
    assert redis.ttl(key) == -1


def test_progress_is_under_a_key_of_its_own(redis: Redis) -> None:
    """One a job, under a prefix that may be chosen."""
    RedisStore(redis).claim("17")
    RedisStore(redis, prefix="shop:").claim("17")
    assert sorted(redis.keys()) == [b"harness:progress:17", b"shop:17"]


def test_a_server_that_cannot_be_reached_keeps_its_password(tmp_path: Path) -> None:
    """redis-py's error comes through, without it."""
    for url in (f"unix://:secret@{tmp_path}/none.sock", "redis://me:secret@127.0.0.1:1/0"):
        with Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as connection:
            for store in (RedisStore(connection), RQMetaStore(connection)):
                with pytest.raises(RedisConnectionError) as caught:
                    store.claim("17")
                assert "secret" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_a_connection_may_decode(real_redis: Redis, redis_url: str) -> None:
    """A connection that returns str instead of bytes will do."""
    with Redis.from_url(redis_url, decode_responses=True) as connection:
        store = RedisStore(connection)
        assert store.load("17") is None
        store.claim("17")
        assert store.claim("17").epoch == 2
        assert store.replace("17", None, "ä")
        assert store.replace("17", "ä", "b")
    assert real_redis.get("harness:progress:17") is not None
