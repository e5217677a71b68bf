"""Memory of a process that a trial has to reset: plain data at the top of the job's modules.

A new process imports its modules again. Trials share one process. So the values that the job left in module variables
or on its classes are restored before each execution: numbers, strings, and lists, dicts and sets of them. A new process
holds no lock, so a lock there that is held is replaced by another one. It has the environment and the working directory
that its parent has, and its caches are empty.
"""

from __future__ import annotations

import copy
import gc
import operator
import os
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import _lru_cache_wrapper
from itertools import compress
from typing import Any

_ATOMS = frozenset({str, bytes, int, float, complex, bool, type(None)})
_CONTAINERS = (list, dict, set)
_LOCKS = (type(threading.Lock()), type(threading.RLock()))
MAX_MEMBERS = 10_000
"""Maximum size of a container that is restored."""

Values = dict[int, Any]
"""Values of the changed variables, by the index of the variable."""


class Memory:
    """Values of the variables in a package's modules.

    A package has many variables, and a job changes few. So only the changed ones are copied and restored. They are
    found without Python code for each variable.

    :param modules: names of the modules of the job's versions; all loaded modules of their top-level packages count.
    :param witnesses: objects that stand for external state, which a crash does not change.
    """

    def __init__(self, modules: Sequence[str], witnesses: list[Any]) -> None:
        packages = {module.partition(".")[0] for module in modules}
        skipped = {id(witness) for witness in witnesses}
        self._owners: list[Any] = []
        self._names: list[str] = []
        self._values: list[Any] = []
        self._firsts: list[Any] = []
        self._locks: list[int] = []
        self._caches: list[_lru_cache_wrapper[Any]] = []
        self._environment, self._folder = dict(os.environ), _working_directory()
        for name, loaded in list(sys.modules.items()):
            if name.partition(".")[0] in packages:
                self._keep(loaded, skipped)
                for value in list(vars(loaded).values()):
                    if isinstance(value, type) and value.__module__ == name:
                        self._keep(value, skipped)
        self._readers = [vars(owner).get for owner in self._owners]
        self._containers = [
            index for index, value in enumerate(self._values) if isinstance(value, _CONTAINERS)
        ]
        self._originals = [self._values[index] for index in self._containers]
        self._copies = [self._firsts[index] for index in self._containers]

    def now(self) -> Values:
        """Return the current values of the changed variables."""
        return {index: _copy(self._held(index)) for index in self._changed()}

    def changed(self) -> list[tuple[int, Any]]:
        """Return the index and the value of each changed variable."""
        return [(index, self._held(index)) for index in self._changed() if index not in self._locks]

    def restore(self, values: Values | None = None) -> None:
        """Restore the initial values, or those that :meth:`now` returned.

        Containers are changed in place, because other modules may have imported them.
        """
        values, is_new = values or {}, values is None
        for index in self._changed(values):
            value, kept = self._values[index], values.get(index, self._firsts[index])
            if isinstance(kept, _CONTAINERS):
                fresh = _copy(kept)
                if type(value) is type(kept):
                    value.clear()
                    value.extend(fresh) if isinstance(value, list) else value.update(fresh)
                    fresh = value
                kept = fresh
            if self._held(index) is not kept:
                setattr(self._owners[index], self._names[index], kept)
        if is_new:
            self._release()
            self._renew()

    def _renew(self) -> None:
        """Empty the caches, and restore the environment and the working directory."""
        for cache in self._caches:
            if _is_plain(cache):
                cache.cache_clear()
        if os.environ != self._environment:
            for name in os.environ.keys() - self._environment.keys():
                del os.environ[name]
            os.environ.update(self._environment)
        if self._folder is not None and _working_directory() != self._folder:
            with suppress(OSError):  # the job has removed it
                os.chdir(self._folder)

    def _release(self) -> None:
        """Replace the locks that are held: a new process holds none."""
        free: dict[int, Any] = {}
        for index in self._locks:
            lock = self._values[index]
            if not lock.acquire(blocking=False):
                new = free.setdefault(
                    id(lock), threading.RLock() if type(lock) is _LOCKS[1] else threading.Lock()
                )
                setattr(self._owners[index], self._names[index], new)
            else:
                lock.release()

    def _changed(self, more: Iterable[int] = ()) -> list[int]:
        """Return the indexes of the variables that have changed, and others, in order."""
        held = map(operator.call, self._readers, self._names)
        other = compress(range(len(self._values)), map(operator.is_not, held, self._values))
        inside = compress(self._containers, map(operator.ne, self._originals, self._copies))
        return sorted({*other, *inside, *more})

    def _held(self, index: int) -> Any:
        return self._readers[index](self._names[index])

    def _keep(self, owner: Any, skipped: set[int]) -> None:
        for name, value in list(vars(owner).items()):
            if name.startswith("__") or id(value) in skipped:
                continue
            cache = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            if isinstance(cache, _lru_cache_wrapper):
                self._caches.append(cache)
            try:
                first = value if isinstance(value, _LOCKS) else _duplicate(value, {})
            except _NotPlainError:
                continue
            if isinstance(value, _LOCKS):
                self._locks.append(len(self._values))
            self._owners.append(owner)
            self._names.append(name)
            self._values.append(value)
            self._firsts.append(first)


def _is_plain(cache: _lru_cache_wrapper[Any]) -> bool:
    """Return whether a cache holds only plain data; a client or an engine in it may represent external state."""
    mine = {id(cache.__wrapped__), id(vars(cache))}
    for each in gc.get_referents(cache):
        inside = list(each.values()) if type(each) is dict and id(each) not in mine else [each]
        for value in inside:
            members = value if type(value) is tuple else [value]  # a key; a mark precedes its keywords
            if id(value) not in mine and not all(map(_is_plain_member, members)):
                return False
    return True


def _is_plain_member(value: Any) -> bool:
    if isinstance(value, type) or type(value) is object or type(value).__module__ == "functools":
        return True
    try:
        _duplicate(value, {})
    except _NotPlainError:
        return False
    return True


def _working_directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a path as text, which is compared
    except OSError:
        return None  # it has been removed


class _NotPlainError(Exception):
    """The value is no plain data."""


def _copy(value: Any) -> Any:
    """Return a deep copy, or a shallow copy of a container that now holds, for example, a connection."""
    if not isinstance(value, _CONTAINERS):
        return value
    try:
        return _duplicate(value, {})
    except _NotPlainError:
        return copy.copy(value)


def _duplicate(value: Any, known: dict[int, Any]) -> Any:
    """Return a copy of plain data; like :func:`copy.deepcopy`, but without its cost for each number and string.

    :param known: copies of the containers so far, by identity; None for one that is being copied.
    :raises _NotPlainError: if it is no plain data.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind not in {*_CONTAINERS, tuple} or len(value) > MAX_MEMBERS:
        raise _NotPlainError
    if id(value) in known:
        if known[id(value)] is None:
            raise _NotPlainError  # it contains itself
        return known[id(value)]
    known[id(value)] = None
    members = value if kind is not dict else (*value, *value.values())
    fresh: Any = [each if type(each) in _ATOMS else _duplicate(each, known) for each in members]
    if kind is dict:
        fresh = dict(zip(fresh, fresh[len(value) :], strict=False))
    elif kind is set:
        fresh = set(fresh)
    elif kind is tuple:
        fresh = value if all(map(operator.is_, fresh, value)) else tuple(fresh)
    known[id(value)] = fresh
    return fresh
