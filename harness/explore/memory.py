"""Memory of a process that a trial has to reset: plain data at the top of the job's modules.

A new process imports its modules again. Trials share one process. So the values that the job left in module variables
or on its classes are restored before each execution: numbers, strings, and lists, dicts and sets of them.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from typing import Any

_ATOMS = (str, bytes, int, float, complex, bool, type(None))
_CONTAINERS = (list, dict, set)
MAX_MEMBERS = 10_000
"""Larger containers are not restored."""


class Memory:
    """Values of the variables in a package's modules.

    :param modules: names of the modules of the job's versions; all loaded modules of their top-level packages count.
    :param witnesses: objects that stand for external state, which a crash does not change.
    """

    def __init__(self, modules: Sequence[str], witnesses: list[Any]) -> None:
        packages = {module.partition(".")[0] for module in modules}
        skipped = {id(witness) for witness in witnesses}
        self._kept: list[tuple[Any, str, Any, Any]] = []
        for name, loaded in list(sys.modules.items()):
            if name.partition(".")[0] in packages:
                self._keep(loaded, skipped)
                for value in list(vars(loaded).values()):
                    if isinstance(value, type) and value.__module__ == name:
                        self._keep(value, skipped)

    def now(self) -> list[Any]:
        """Return the current values of the variables."""
        return [_copy(vars(owner).get(name)) for owner, name, _, _ in self._kept]

    def changed(self) -> list[Any]:
        """Return the values of changed variables, each after its index."""
        found = []
        for index, (owner, name, value, first) in enumerate(self._kept):
            held = vars(owner).get(name)
            if held is not value or (isinstance(value, _CONTAINERS) and value != first):
                found.append((index, held))
        return found

    def restore(self, values: list[Any] | None = None) -> None:
        """Restore the initial values, or those that :meth:`now` returned.

        Containers are changed in place, because other modules may have imported them.
        """
        for index, (owner, name, value, first) in enumerate(self._kept):
            kept = first if values is None else values[index]
            if isinstance(kept, _CONTAINERS):
                if value != kept:
                    fresh = _copy(kept)
                    value.clear()
                    value.extend(fresh) if isinstance(value, list) else value.update(fresh)
                kept = value
            if vars(owner).get(name) is not kept:
                setattr(owner, name, kept)

    def _keep(self, owner: Any, skipped: set[int]) -> None:
        for name, value in list(vars(owner).items()):
            if not name.startswith("__") and id(value) not in skipped and _is_plain(value):
                kept = copy.deepcopy(value) if isinstance(value, _CONTAINERS) else value
                self._kept.append((owner, name, value, kept))


def _copy(value: Any) -> Any:
    """Return a copy; of a container that has come to hold a connection, say, one with the same members."""
    if not isinstance(value, _CONTAINERS):
        return value
    return copy.deepcopy(value) if _is_plain(value) else copy.copy(value)


def _is_plain(value: Any) -> bool:
    if type(value) in _ATOMS:
        return True
    if type(value) in {*_CONTAINERS, tuple} and len(value) <= MAX_MEMBERS:
        members = [*value, *value.values()] if isinstance(value, dict) else value
        return all(_is_plain(member) for member in members)
    return False
