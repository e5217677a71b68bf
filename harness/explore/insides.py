"""Fingerprint of a process at a point: everything visible that its future depends on.

It covers, for each running function of the job's own code: its position, and the variables that it may still
read (:mod:`.liveness`); of a job class: its attributes, its steps and its cursor; the generators that its
enumerator consists of; and the variables of its modules that have changed (:mod:`.memory`).

None means that the process contains something that cannot be compared: an open file, a session with unflushed
changes, an open transaction, a thread, or an object of an unknown kind.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import enum
import fractions
import hashlib
import io
import logging
import marshal
import os
import pathlib
import re
import sys
import sysconfig
import types
import uuid
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, Engine, Result
from sqlalchemy.orm import Session

from harness.execution import Execution
from harness.explore.liveness import live
from harness.explore.points import is_own
from harness.explore.turns import TurnLoop
from harness.iteration import IterationJob
from harness.job import Job

if TYPE_CHECKING:
    from types import CodeType, FrameType, GeneratorType

    from harness.explore.crash import SimulatedProcess
    from harness.explore.memory import Memory

MAX_VALUES = 50_000
"""Maximum number of values in a process that can be compared."""
MAX_DEPTH = 12

_SHOWN = (
    dt.date, dt.time, dt.timedelta, dt.tzinfo, decimal.Decimal, fractions.Fraction, uuid.UUID,
    pathlib.PurePath, re.Pattern, range, complex,
)  # fmt: skip
_OPAQUE = (type, types.ModuleType, types.BuiltinFunctionType, logging.Logger, Engine, Connection)
_OURS = ("harness.", "fakeredis.", "redis.", "sqlalchemy.")
"""Packages whose objects are compared by type only: their content follows from the job's values, or is external."""
_INSTALLED, _STDLIB = (
    tuple(sysconfig.get_path(name) + os.sep for name in names)
    for names in (("purelib", "platlib"), ("stdlib", "platstdlib"))
)
_LIBRARIES = tuple(
    f"{folder}{name}{os.sep}" for folder in _INSTALLED for name in ("sqlalchemy", "redis", "rq")
)
_ITERATORS: tuple[type, ...] = (
    type(iter([])), type(iter(())), type(iter(range(0))), type(iter({})), type(iter({}.items())),
    type(iter({}.values())), type(iter("")), enumerate, zip, map, filter, reversed, type(reversed([])),
)  # fmt: skip
_ITERATE = IterationJob._iterate.__code__  # noqa: SLF001 - the frame that holds the enumerator


class Incomparable(Exception):
    """The process contains something that cannot be compared."""


def fingerprint(simulated: SimulatedProcess, boundary: CodeType, memory: Memory) -> bytes | None:
    """Return the fingerprint of this thread's process; None if it cannot be compared."""
    if any(_in_transaction(each) for each in simulated.connections.values()):
        return None
    if any(thread.is_alive() for thread in simulated.threads) or _others_wait():
        return None
    frames = _frames(boundary)
    if frames is None:
        return None
    shapes = _Shapes()
    try:
        found = [shape for frame in frames if (shape := shapes.frame(frame)) is not None]
        if not found:
            return None  # the code of a queue, before the job or after it
        found.append(shapes.of(memory.changed()))
    except Exception:  # noqa: BLE001 - objects of the job may raise anything when they are read
        return None
    return hashlib.blake2b(repr(found).encode(errors="surrogatepass"), digest_size=16).digest()


def _others_wait() -> bool:
    """Return whether other tasks of the event loop wait: their variables are in no frame of this thread."""
    loop = asyncio._get_running_loop()  # noqa: SLF001 - the public function raises where there is none
    if isinstance(loop, TurnLoop) and loop.has_items:
        return True  # faster than all_tasks(), which iterates over the tasks of all loops
    return loop is not None and len(asyncio.all_tasks(loop)) > 1


def _frames(boundary: CodeType) -> list[FrameType] | None:
    """Return the frames from here to the boundary; None in a greenlet, which does not show its caller."""
    found, frame = [], sys._getframe(2)  # noqa: SLF001 - there is no public way that is as cheap
    while frame is not None and frame.f_code is not boundary:
        found.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return None if frame is None else found


def _in_transaction(connection: Any) -> bool:
    raw = getattr(connection, "dbapi_connection", None)
    if raw is None:
        return False
    status = getattr(getattr(raw, "info", None), "transaction_status", 0)
    return bool(getattr(raw, "in_transaction", False)) or int(status) != 0


class _Shapes:
    """Converts values to plain data that is equal if the values are."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no identity is used twice
        self._values = 0

    def frame(self, frame: FrameType) -> Any:
        """Return the values that a running function may still use; for code that is not the job's, the job itself."""
        code = frame.f_code
        if is_own(code):
            values = frame.f_locals
            names = sorted(live(code, frame.f_lasti) & values.keys())
            return (id(code), frame.f_lasti, [(name, self.of(values[name])) for name in names])
        # Reading the variables of a frame is slow, and most frames are SQLAlchemy's.
        if _without_jobs(code.co_filename):
            return None
        if code is _ITERATE:
            return self.of(frame.f_locals.get("pairs"))
        me = frame.f_locals.get("self") if code.co_varnames[:1] == ("self",) else None
        return self.of(me) if isinstance(me, Job) else None

    def of(self, value: Any, depth: int = 0) -> Any:
        """Return the shape of a value."""
        self._values += 1
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            raise Incomparable
        try:
            return hashlib.blake2b(marshal.dumps(value, 2), digest_size=16).hexdigest()
        except ValueError:
            pass  # it contains more than plain data
        if isinstance(value, enum.Enum):
            return (id(type(value)), value.name)
        if isinstance(value, _SHOWN):
            return (id(type(value)), repr(value))
        if isinstance(value, _OPAQUE):
            return id(value)
        if id(value) in self._seen:
            return ("again", self._seen[id(value)])
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        return self._inside(value, depth + 1)

    def _inside(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict | list | tuple | deque | set | frozenset):
            return self._members(value, depth), self.of(getattr(value, "__dict__", None), depth)
        if isinstance(value, types.GeneratorType):
            return self._generator(value, depth)
        if isinstance(value, _ITERATORS):
            return self._iterator(value, depth)
        if isinstance(value, types.FunctionType | types.MethodType):
            return self._function(value, depth)
        return self._known(value, depth)

    def _function(self, value: Any, depth: int) -> Any:
        if isinstance(value, types.MethodType):
            return (id(value.__func__), self.of(value.__self__, depth))
        cells = [self.of(_cell(each), depth) for each in value.__closure__ or ()]
        return (id(value.__code__), cells, self.of(value.__defaults__, depth))

    def _known(self, value: Any, depth: int) -> Any:
        """Return the shape of an object of a known library, or of the job's own."""
        kind = type(value)
        busy = isinstance(value, Session) and (value.new or value.deleted or value.dirty)
        if busy or (isinstance(value, Result) and not getattr(value, "_soft_closed", False)):
            raise Incomparable  # there are changes to flush, or rows to come
        if isinstance(value, Job):
            ours = _names_of_ours(cast(Any, kind))
            own = {name: each for name, each in sorted(vars(value).items()) if name not in ours}
            return (id(kind), self.of(own, depth), self.of(value.execution, depth))
        if isinstance(value, Execution):
            where = (value.step, value.cursor, value.completed, value.total, value.progress.attributes)
            return (id(kind), self.of(where, depth))
        return self._object(value, depth)

    def _members(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if isinstance(value, dict):
            return (id(kind), [(self.of(k, depth), self.of(v, depth)) for k, v in value.items()])
        found = [self.of(each, depth) for each in value]
        return (id(kind), sorted(map(repr, found)) if isinstance(value, set | frozenset) else found)

    def _object(self, value: Any, depth: int) -> Any:
        kind = type(value)
        own = vars(value) if hasattr(value, "__dict__") else None
        if isinstance(value, io.IOBase):
            if not value.closed:
                raise Incomparable
            return id(kind)
        if own is not None and "_sa_instance_state" in own:
            state = own["_sa_instance_state"]
            plain = {name: each for name, each in own.items() if name != "_sa_instance_state"}
            return (id(kind), state.modified, self.of(plain, depth))
        if kind.__module__.startswith(_OURS):
            return id(kind)
        slots = [name for each in kind.__mro__ for name in _slots(each) if hasattr(value, name)]
        if hasattr(value, "__next__") or (own is None and not slots):
            raise Incomparable
        held = [(name, self.of(getattr(value, name), depth)) for name in slots]
        return (
            id(kind),
            self.of(own, depth),
            held,
            self.of(value.args if isinstance(value, BaseException) else None, depth),
        )

    def _generator(self, value: GeneratorType[Any, Any, Any], depth: int) -> Any:
        frame = value.gi_frame
        if frame is None:
            return "exhausted"
        values = frame.f_locals
        if is_own(value.gi_code):
            names = sorted(live(value.gi_code, frame.f_lasti) & values.keys())
            inner = [(name, self.of(values[name], depth)) for name in names]
            return (id(value.gi_code), frame.f_lasti, inner, self.of(value.gi_yieldfrom, depth))
        # A generator of a library or of this package: its source counts, if it is the job's.
        return [
            self.of(each, depth)
            for each in values.values()
            if isinstance(each, (types.GeneratorType, *_ITERATORS))
        ]

    def _iterator(self, value: Any, depth: int) -> Any:
        """Return the remaining items of an iterator, or its parts."""
        reduced = value.__reduce__()
        position = reduced[2] if len(reduced) > 2 else None
        inner = reduced[1]
        if isinstance(position, int) and inner and isinstance(inner[0], list | tuple | str | range):
            return ("rest", self.of(inner[0][position:], depth))
        return ("of", self.of(inner, depth), self.of(position, depth))


@cache
def _without_jobs(file: str) -> bool:
    """Return whether a file is of the standard library, or of a library whose methods are not a job's."""
    installed = file.startswith(_INSTALLED)
    return file.startswith(_LIBRARIES) if installed else file.startswith(_STDLIB)


@cache
def _names_of_ours(kind: Any) -> frozenset[str]:
    """Return the names of the attributes that this package keeps on a job."""
    ours = [each for each in kind.__mro__ if each.__module__.startswith("harness.")]
    return frozenset(name for each in ours for name in (*vars(each), *vars(each).get("__annotations__", ())))


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [each for each in ([slots] if isinstance(slots, str) else slots) if not each.startswith("__")]


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None
