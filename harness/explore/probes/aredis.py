"""Crash points of ``redis.asyncio``: those of :mod:`.redis`, with the same names."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractContextManager
from functools import wraps
from types import SimpleNamespace
from typing import Any

import redis
from redis import asyncio as aio
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

from harness.explore.crash import SimulatedProcess, accounted, awaiting, current
from harness.explore.probes.patching import patched
from harness.explore.probes.redis import LOST, describe_command, describe_pipeline, published
from harness.explore.probes.redis_server import beyond
from harness.explore.turns import other_items


def probes() -> AbstractContextManager[None]:
    """Hook the client, until the block ends."""
    return patched(
        (aio.Redis, "execute_command", _command),
        (Pipeline, "immediate_execute_command", _command),
        (Pipeline, "execute", _pipeline),
    )


def _command(execute: Any) -> Any:
    # A pipeline's execute_command only queues the command, and is no coroutine.
    @wraps(execute)
    async def hooked(client: Any, *args: Any, **options: Any) -> Any:
        simulated = current()
        if simulated is None:
            return await execute(client, *args, **options)
        return await _reached(
            simulated, client, [args], describe_command(args), lambda: execute(client, *args, **options)
        )

    return hooked


def _pipeline(execute: Any) -> Any:
    @wraps(execute)
    async def hooked(pipeline: Any, *args: Any, **options: Any) -> Any:
        simulated = current()
        if simulated is None or not pipeline.command_stack:
            return await execute(pipeline, *args, **options)
        commands = [command[0] for command in pipeline.command_stack]
        label = describe_pipeline(commands)
        return await _reached(
            simulated, pipeline, commands, label, lambda: execute(pipeline, *args, **options)
        )

    return hooked


async def _reached(
    simulated: SimulatedProcess, client: Any, commands: list[Any], label: str, execute: Any
) -> Any:
    same = _blocking(client)
    simulated.observer.meet(same)
    cancelled = _cancelled()
    with awaiting():
        simulated.reach("before-redis", label)
    beyond(simulated, commands)
    with accounted():
        answer = await execute()
    await other_items()
    if (
        _cancelled() > cancelled
    ):  # fakeredis answers at once, and asyncio.wait_for() of Python 3.11 then loses a cancellation
        raise asyncio.CancelledError
    published(simulated, commands)
    simulated.observer.meet(same)
    simulated.reach("redis", label, lambda: RedisConnectionError(LOST))
    return answer


def _cancelled() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _blocking(client: Any) -> Any:
    """Return a client of the same database without asyncio, for its resource."""
    pool = client.connection_pool
    kinds: dict[Any, Any] = {
        aio.Connection: redis.Connection,
        aio.SSLConnection: redis.SSLConnection,
        aio.UnixDomainSocketConnection: redis.UnixDomainSocketConnection,
    }
    kind = kinds.get(pool.connection_class)
    given = dict(pool.connection_kwargs)
    if kind is None and given.get("server") is not None:
        fakeredis: Any = sys.modules["fakeredis"]  # a client of it has loaded it
        kind = getattr(fakeredis, "FakeRedisConnection", None) or fakeredis.FakeConnection
    kind = kind or redis.Connection
    # Objects of asyncio, which the other client creates itself.
    for name in ("parser_class", "retry", "redis_connect_func", "credential_provider", "event_dispatcher"):
        given.pop(name, None)
    return SimpleNamespace(connection_pool=SimpleNamespace(connection_class=kind, connection_kwargs=given))
