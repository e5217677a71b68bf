"""Crash points before and after each Redis command and pipeline: ``before-redis`` and ``redis``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

from harness.explore.crash import SimulatedProcess, accounted, current
from harness.explore.probes.patching import patched
from harness.explore.probes.redis_server import beyond
from harness.explore.redis import NOT_THE_JOBS

LOST = "the connection was lost before the answer came"


def probes() -> AbstractContextManager[None]:
    """Hook the client, until the block ends."""
    return patched(
        (Redis, "execute_command", _command),
        (Pipeline, "immediate_execute_command", _command),
        (Pipeline, "execute", _pipeline),
    )


def _command(execute: Any) -> Any:
    @wraps(execute)
    def hooked(client: Any, *args: Any, **options: Any) -> Any:
        simulated = current()
        if simulated is None:
            return execute(client, *args, **options)
        return _reached(client, [args], describe_command(args), lambda: execute(client, *args, **options))

    return hooked


def _pipeline(execute: Any) -> Any:
    @wraps(execute)
    def hooked(pipeline: Any, *args: Any, **options: Any) -> Any:
        simulated = current()
        if simulated is None or not pipeline.command_stack:
            return execute(pipeline, *args, **options)
        commands = [command[0] for command in pipeline.command_stack]
        label = describe_pipeline(commands)
        return _reached(pipeline, commands, label, lambda: execute(pipeline, *args, **options))

    return hooked


def describe_command(args: Any) -> str:
    """Return a command's name and key."""
    return " ".join(map(_text, args[:2]))


def describe_pipeline(commands: list[Any]) -> str:
    """Return the first commands of a pipeline, each with its key."""
    more = ", …" if len(commands) > 3 else ""
    return f"pipeline {', '.join(map(describe_command, commands[:3]))}{more}"


def published(simulated: SimulatedProcess, commands: list[Any]) -> None:
    """Record the messages that these commands have published, except those of RQ and this package."""
    for command in commands:
        if len(command) > 2 and _text(command[0]).upper() in {"PUBLISH", "SPUBLISH"}:
            channel = _text(command[1])
            if not channel.encode().startswith(NOT_THE_JOBS):
                simulated.observer.sent("message", channel, _text(command[2]).encode())


def _reached(client: Any, commands: list[Any], label: str, execute: Any) -> Any:
    simulated = current()
    assert simulated is not None  # noqa: S101 - both callers have looked
    simulated.observer.meet(client)
    simulated.reach("before-redis", label)
    beyond(simulated, commands)
    with accounted():
        answer = execute()
    published(simulated, commands)
    simulated.observer.meet(client)  # the command may have changed data
    simulated.reach("redis", label, lambda: RedisConnectionError(LOST))
    return answer


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
