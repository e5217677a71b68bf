"""Redis commands with an effect outside of the compared database: they are reported as not seen.

A script or a function can publish a message that is in no command. Some commands change another database of the
server.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import wraps
from hashlib import sha1
from typing import Any

from redis.commands.core import AsyncScript, Script

from harness.explore.crash import SimulatedProcess
from harness.explore.probes.callers import caller
from harness.explore.probes.patching import patched

NAME = "redis-server"
"""Name under which a user accepts them."""
ELSEWHERE = {"FLUSHALL", "MIGRATE", "MOVE", "SWAPDB", "SELECT"}
"""Commands that change another database."""
_SCRIPTS = {"EVAL", "EVAL_RO", "SCRIPT LOAD"}
_BY_HASH = {"EVALSHA", "EVALSHA_RO"}
_texts: dict[str, str] = {}
"""Scripts by their hash."""


def probes() -> AbstractContextManager[None]:
    """Hook scripts, which a client may have registered before the job, until the block ends."""
    return patched((Script, "__call__", _called), (AsyncScript, "__call__", _called))


def _called(call: Any) -> Any:
    @wraps(call)
    def hooked(script: Any, *args: Any, **kwargs: Any) -> Any:
        _texts[script.sha] = _text(script.script)
        return call(script, *args, **kwargs)

    return hooked


def beyond(simulated: SimulatedProcess, commands: list[Any]) -> None:
    """Report commands whose effect no resource compares."""
    for command in commands:
        name = _text(command[0]).upper()
        what = _effect(name, command)
        found = caller(2) if what else None
        if what and found is not None:
            simulated.unseen(NAME, what, found.line)


def _effect(name: str, command: Any) -> str:
    if name in _SCRIPTS:
        text = _text(command[1])
        _texts[_hash(text)] = text
        return "" if name == "SCRIPT LOAD" else _of_script(text)
    if name in _BY_HASH:
        return _of_script(_texts.get(_text(command[1])))
    if name in {"FCALL", "FCALL_RO"}:
        return f"function {_text(command[1])}, which may publish messages"
    if name == "COPY" and any(_text(each).upper() == "DB" for each in command[3:]):
        return "COPY into another database"
    return f"{name} changes another database" if name in ELSEWHERE else ""


def _of_script(text: str | None) -> str:
    if text is None:
        return "a script that was loaded before, which may publish messages"
    return "a script publishes messages" if "publish" in text.lower() else ""


def _hash(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
