"""Crash points before and after each Redis command and pipeline: ``before-redis`` and ``redis``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

from harness.explore.crash import current
from harness.explore.probes.patching import patched

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
        life = current()
        if life is None:
            return execute(client, *args, **options)
        return _reached(client, " ".join(map(_text, args[:2])), lambda: execute(client, *args, **options))

    return hooked


def _pipeline(execute: Any) -> Any:
    @wraps(execute)
    def hooked(pipeline: Any, *args: Any, **options: Any) -> Any:
        life = current()
        if life is None or not pipeline.command_stack:
            return execute(pipeline, *args, **options)
        commands = ", ".join(" ".join(map(_text, command[0][:2])) for command in pipeline.command_stack[:3])
        more = ", …" if len(pipeline.command_stack) > 3 else ""
        return _reached(pipeline, f"pipeline {commands}{more}", lambda: execute(pipeline, *args, **options))

    return hooked


def _reached(client: Any, label: str, execute: Any) -> Any:
    life = current()
    assert life is not None  # noqa: S101 - both callers have looked
    life.observer.meet(client)
    life.reach("before-redis", label)
    answer = execute()
    life.observer.meet(client)  # which may have changed something
    life.reach("redis", label, lambda: RedisConnectionError(LOST))
    return answer


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
