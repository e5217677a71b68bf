"""Places that live in this process: mails and requests that arrived, and objects that stand for external state."""

from __future__ import annotations

import copy
from typing import Any

from harness.explore.tables import Table, from_value


class SentPlace:
    """The mails and requests that arrived, in order."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self._seen = 0

    def changed(self) -> bool:
        """Return whether one more arrived."""
        seen, self._seen = self._seen, len(self.sent)
        return seen != self._seen

    def keep(self) -> tuple[tuple[str, str], ...]:
        """Return them."""
        return tuple(self.sent)

    def restore(self, kept: tuple[tuple[str, str], ...]) -> None:
        """Put them back."""
        self.sent = list(kept)
        self._seen = len(self.sent)

    def contents(self, kept: tuple[tuple[str, str], ...] | None = None) -> dict[str, Table]:
        """Return one table for each kind."""
        sent = self.sent if kept is None else kept
        kinds = sorted({"mail", *(kind for kind, _ in sent)})
        return {
            f"{kind}s": Table((kind,), [(label,) for each, label in sent if each == kind], unnamed=True)
            for kind in kinds
        }

    def close(self) -> None:
        """Nothing is open."""


class ObjectPlace:
    """List, dict or set that stands for external state, such as the calls of a test's double."""

    def __init__(self, name: str, thing: Any) -> None:
        self._name, self._thing = name, thing
        self._seen = self.keep()

    def changed(self) -> bool:
        """Return whether it is no longer equal."""
        if self._seen == self._thing:
            return False
        self._seen = self.keep()
        return True

    def keep(self) -> Any:
        """Return a copy."""
        return copy.deepcopy(self._thing)

    def restore(self, kept: Any) -> None:
        """Change it back, in place."""
        self._thing.clear()
        add = self._thing.extend if isinstance(self._thing, list) else self._thing.update
        add(copy.deepcopy(kept))
        self._seen = self.keep()

    def contents(self, kept: Any = None) -> dict[str, Table]:
        """Return its members."""
        thing = self._thing if kept is None else kept
        return {self._name: from_value(thing, ("member",))}

    def close(self) -> None:
        """Nothing is open."""
