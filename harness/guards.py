"""Guarded cursors: a position, and proof that what is iterated is still what it was.

``{"at": position, "guard": proof}``, where the position is the cursor that an unguarded enumerator would give. What
the proof is, each enumerator says: a digest of all there is, or how many items there are and how many were passed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from hashlib import blake2b
from typing import Any

from harness.cursor import encode
from harness.errors import CollectionChanged, CursorError

hasher = partial(blake2b, digest_size=16)
"""Makes a digest; its size is enough to tell collections apart, and nobody gains by forging one."""


def guarded(position: Any, proof: Any) -> dict[str, Any]:
    """Return the cursor of a position and its proof."""
    return {"at": position, "guard": proof}


def split(name: str, cursor: Any, *, guard: bool) -> tuple[Any, Any]:
    """Return the position and the proof of a cursor, each None at the beginning.

    :param name: of the enumerator, for errors.
    :raises CursorError: if the cursor is guarded and the enumerator is not, or the other way round.
    """
    found = type(cursor) is dict and list(cursor) == ["at", "guard"]
    if guard and not found and cursor is not None:
        raise CursorError(
            f"{name} with guard=True resumes from None or from a cursor that it gave, found {cursor!r}; the job began "
            "without a guard: let it end without one, or start it anew"
        )
    if found and not guard:
        raise CursorError(
            f"{name} without a guard resumes from its own cursors, found the guarded {cursor!r}; pass guard=True, or "
            "start from what it has under 'at'"
        )
    return (cursor["at"], cursor["guard"]) if found else (cursor, None)


def digest(name: str, values: Iterable[Any]) -> str:
    """Return a digest of values such as a cursor may hold.

    :raises CursorError: naming a value that is none.
    """
    state = hasher()
    for index, value in enumerate(values):
        state.update(json.dumps(encode(value, f"{name}[{index}]"), sort_keys=True).encode() + b"\n")
    return state.hexdigest()


def compare(what: str, proof: Any, found: Any) -> None:
    """Compare the proof in a cursor, if there is one, with what is found now.

    :param what: is iterated, for the error.
    :raises CollectionChanged: if they differ.
    """
    if proof is not None and proof != found:
        raise CollectionChanged(
            f"{what} has changed since the job began (its digest was {proof}, found {found}): going on could skip "
            "items or do them again; put back what was there, or start the job anew"
        )
