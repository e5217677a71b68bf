"""Resources in this process: received mails, requests and messages, and objects that represent external state."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any

from harness.explore.cells import blurred, without_times
from harness.explore.tables import BODIES, Table, from_value

Sent = tuple[str, str, str]
"""Kind and label of what was sent, and hashes of its body: without times; without times, random ids and numbers."""


class SentResource:
    """Received mails, requests and messages in order: each with its kind, its label and a hash of its body."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._seen = 0

    def add(self, kind: str, label: str, body: bytes) -> None:
        """Record a mail, a request or a message.

        Only hashes of the body are kept, because the body may be confidential. They are two words of a cell: if the
        first one differs between clean runs, the second one is still compared.
        """
        digests = f"{_digest(body, without_times)} {_digest(body, blurred)}" if body else ""
        self.sent.append((kind, label, digests))

    def changed(self) -> bool:
        """Return whether another one has arrived."""
        seen, self._seen = self._seen, len(self.sent)
        return seen != self._seen

    def keep(self) -> tuple[Sent, ...]:
        """Return them."""
        return tuple(self.sent)

    def restore(self, kept: tuple[Sent, ...]) -> None:
        """Restore them."""
        self.sent = list(kept)
        self._seen = len(self.sent)

    def contents(self, kept: tuple[Sent, ...] | None = None) -> dict[str, Table]:
        """Return one table for each kind, and one for the bodies of each."""
        sent = self.sent if kept is None else kept
        found = {}
        for kind in sorted({"mail", *(each for each, _, _ in sent)}):
            rows = [(label, digests) for each, label, digests in sent if each == kind]
            found[f"{kind}s"] = Table((kind,), [(label,) for label, _ in rows], unnamed=True)
            if any(digests for _, digests in rows):
                found[f"{BODIES}{kind}s"] = Table((kind, "body"), rows)
        return found

    def close(self) -> None:
        """Nothing is open."""


def _digest(body: bytes, compared: Callable[[str], str]) -> str:
    with suppress(UnicodeDecodeError):
        body = compared(body.decode()).encode()
    return sha256(body).hexdigest()[:12]


class ObjectResource:
    """List, dict or set that represents external state, such as the calls of a test double."""

    def __init__(self, name: str, value: Any) -> None:
        self._name, self._value = name, value
        self._seen = self.keep()

    def changed(self) -> bool:
        """Return whether it has changed."""
        if self._seen == self._value:
            return False
        self._seen = self.keep()
        return True

    def keep(self) -> Any:
        """Return a copy."""
        return copy.deepcopy(self._value)

    def restore(self, kept: Any) -> None:
        """Restore it in place."""
        self._value.clear()
        add = self._value.extend if isinstance(self._value, list) else self._value.update
        add(copy.deepcopy(kept))
        self._seen = self.keep()

    def contents(self, kept: Any = None) -> dict[str, Table]:
        """Return its members."""
        value = self._value if kept is None else kept
        return {self._name: from_value(value, ("member",))}

    def close(self) -> None:
        """Nothing is open."""
