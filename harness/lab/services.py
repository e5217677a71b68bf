"""Broker and database of a lab: found, started if private, and checked to be empty."""

from __future__ import annotations

import os
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING

import redis
import sqlalchemy

from harness.boundary.urls import reason, shown
from harness.errors import UsageError
from harness.lab.backends import KINDS
from harness.lab.rabbitmq import rabbitmq_server
from harness.lab.servers import Server, postgresql_server, redis_server

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

EMBEDDED, REDIS, RABBITMQ = "fakeredis", "redis", "rabbitmq"


class MissingService(UsageError):
    """A server needed by trials is not installed."""


class Services:
    """Services of a lab, started once and ended by :meth:`close`.

    :param broker: ``fakeredis`` for none, ``redis`` or ``rabbitmq`` for a private server, or the URL of an empty Redis
        database; None for the default of the queue.
    :param database: None for files of SQLite, ``postgresql`` for a private server, or the URL of an empty database.
    :param queue: kind of the queue.
    :ivar broker: URL of the server with the messages; None if there is none. :ivar redis: URL of the Redis with
        tickets and requests, the same for all but RabbitMQ.
    :raises UsageError: for a URL that cannot be used, or a broker that the queue does not have.
    :raises MissingService: if a private server is needed but not installed.
    """

    def __init__(self, broker: str | None, database: str | None, queue: str = "rq") -> None:
        self._stack = ExitStack()
        _check_queue(queue, broker)
        if broker is None:
            broker = EMBEDDED if queue == "rq" else REDIS
        self.broker_name = broker if broker in {EMBEDDED, RABBITMQ} else REDIS
        """Name of the broker in records."""
        try:
            self.redis = self._redis(REDIS if broker == RABBITMQ else broker)
            self.broker = self._private(rabbitmq_server()) if broker == RABBITMQ else self.redis
            self.database = self._database(database)
        except BaseException:
            self.close()
            raise

    @property
    def database_name(self) -> str:
        """Name of the database in records."""
        if self.database is None:
            return "sqlite"
        return sqlalchemy.make_url(self.database).get_backend_name()

    def empty_broker(self) -> None:
        """Delete the data of a trial in Redis."""
        if self.redis is not None:
            with redis.Redis.from_url(self.redis) as connection:
                connection.flushdb()

    def close(self) -> None:
        """End the private servers."""
        self._stack.close()

    def _redis(self, broker: str) -> str | None:
        if broker == EMBEDDED:
            return None
        if broker == REDIS:
            return self._private(redis_server())
        _check_redis(broker)
        return broker

    def _private(self, server: AbstractContextManager[Server]) -> str:
        try:
            return self._stack.enter_context(server).url
        except UsageError as error:
            raise MissingService(str(error)) from None

    def _database(self, database: str | None) -> str | None:
        if database == "postgresql":
            if find_spec("psycopg") is None:
                raise MissingService("psycopg is not installed; run: python -m pip install 'psycopg[binary]'")
            return self._private(postgresql_server())
        if database is not None:
            _check_database(database)
        return database


def required() -> bool:
    """Return whether a missing service fails a test instead of skipping it."""
    return os.environ.get("HARNESS_REQUIRE_SERVICES") == "1"


def _check_queue(queue: str, broker: str | None) -> None:
    """Refuse a queue that is unknown or not installed, or a broker that it does not have."""
    if queue not in KINDS:
        raise UsageError(f"got the queue {queue!r}; use {', '.join(KINDS)}")
    title = KINDS[queue].title
    if find_spec(queue) is None:
        raise MissingService(
            f"{title} is not installed; run: python -m pip install 'job-continuation-harness[{queue}]'"
        )
    if broker == RABBITMQ and queue == "rq":
        raise UsageError("RQ has no broker but Redis; use redis, or the queue celery or dramatiq")
    if broker == RABBITMQ and queue == "dramatiq" and find_spec("pika") is None:
        raise MissingService("pika is not installed; run: python -m pip install 'dramatiq[rabbitmq]'")
    if broker == EMBEDDED and queue != "rq":
        raise UsageError(f"{title} runs processes, which {EMBEDDED} cannot serve; use redis or rabbitmq")


def _check_redis(url: str) -> None:
    try:
        connection = redis.Redis.from_url(url)
    except ValueError as error:
        raise UsageError(
            f"{shown(url)} is not a Redis URL ({reason(error, url)}); use fakeredis, redis or rabbitmq for a "
            "private server, or a URL such as redis://localhost/15"
        ) from None
    with connection:
        try:
            keys = connection.dbsize()
        except redis.RedisError as error:
            raise UsageError(f"the Redis at {shown(url)} cannot be used: {type(error).__name__}") from None
    if keys:
        raise UsageError(
            f"the Redis database at {shown(url)} has {keys} keys already; use an empty one, because trials "
            "remove everything in it"
        )


def _check_database(database: str) -> None:
    """Refuse a URL without a server, or a database that already has tables."""
    where = shown(database)
    try:
        engine = sqlalchemy.create_engine(database)
    except (sqlalchemy.exc.ArgumentError, ImportError, TypeError, ValueError) as error:
        raise UsageError(
            f"the database URL {where} cannot be used: {reason(error, database)}; use postgresql for a private server, "
            "or a URL such as sqlite:///trials.db"
        ) from None
    try:
        tables = sqlalchemy.inspect(engine).get_table_names()
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise UsageError(f"the database {where} cannot be reached: {reason(error, database)}") from None
    finally:
        engine.dispose()
    if tables:
        raise UsageError(
            f"the database {where} has tables already ({', '.join(tables[:3])}, …); use an empty one, "
            "because trials drop their tables"
        )
