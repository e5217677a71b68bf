"""Resources in this process: received mails, requests and messages, and objects that represent external state."""

from __future__ import annotations

import copy
from contextlib import suppress
from hashlib import sha256
from typing import Any

from harness.explore.cells import blurred
from harness.explore.tables import BODIES, Table, from_value


class SentResource:
    """Received mails, requests and messages in order: each with its kind, its label and a hash of its body."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self._seen = 0

    def add(self, kind: str, label: str, body: bytes) -> None:
        """Record one.

        Only a hash of the body is kept, without times and random ids, because the body may be confidential.
        """
        self.sent.append((kind, label, _digest(body) if body else ""))

    def changed(self) -> bool:
        """Return whether another one arrived."""
        seen, self._seen = self._seen, len(self.sent)
        return seen != self._seen

    def keep(self) -> tuple[tuple[str, str, str], ...]:
        """Return them."""
        return tuple(self.sent)

    def restore(self, kept: tuple[tuple[str, str, str], ...]) -> None:
        """Restore them."""
        self.sent = list(kept)
        self._seen = len(self.sent)

    def contents(self, kept: tuple[tuple[str, str, str], ...] | None = None) -> dict[str, Table]:
        """Return one table for each kind, and one for the bodies of each."""
        sent = self.sent if kept is None else kept
        found = {}
        for kind in sorted({"mail", *(each for each, _, _ in sent)}):
            rows = [(label, digest) for each, label, digest in sent if each == kind]
            found[f"{kind}s"] = Table((kind,), [(label,) for label, _ in rows], unnamed=True)
            if any(digest for _, digest in rows):
                found[f"{BODIES}{kind}s"] = Table((kind, "body"), rows)
        return found

    def close(self) -> None:
        """Nothing is open."""


def _digest(body: bytes) -> str:
    with suppress(UnicodeDecodeError):
        body = blurred(body.decode()).encode()
    return sha256(body).hexdigest()[:12]


class ObjectResource:
    """List, dict or set that represents external state, such as the calls of a test double."""

    def __init__(self, name: str, thing: Any) -> None:
        self._name, self._thing = name, thing
        self._seen = self.keep()

    def changed(self) -> bool:
        """Return whether it has changed."""
        if self._seen == self._thing:
            return False
        self._seen = self.keep()
        return True

    def keep(self) -> Any:
        """Return a copy."""
        return copy.deepcopy(self._thing)

    def restore(self, kept: Any) -> None:
        """Restore it in place."""
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
