"""Guarded cursors: a position, and proof that the collection is unchanged.

The form is ``{"at": position, "guard": proof}``; the position is the cursor of an unguarded enumerator. Each enumerator
defines its proof: a digest of the whole collection, or the number of items and the number passed. A job that starts in
the middle has the proof None: the collection must not change after that start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol, TypeVar

from harness.cursor import encode, freeze
from harness.errors import CollectionChanged, CursorError

T = TypeVar("T")

_SMALL = 2**63
"""Limit below which an int certainly has few digits."""

hasher = partial(blake2b, digest_size=16)
"""Digest function. Its size is enough to distinguish collections; forging a digest gains nothing."""


def guarded(position: Any, proof: Any) -> dict[str, Any]:
    """Return the cursor of a position and its proof."""
    return {"at": position, "guard": proof}


def split(name: str, cursor: Any, *, guard: bool) -> tuple[Any, Any]:
    """Return the position and the proof of a cursor, each None at the beginning.

    :param name: name of the enumerator, for errors. :raises CursorError: if only one of the cursor and the enumerator
        is guarded.
    """
    found = type(cursor) is dict and list(cursor) == ["at", "guard"]
    if guard and not found and cursor is not None:
        raise CursorError(
            f"{name} with guard=True resumes from None or from its own cursor; got {cursor!r}; a job that started "
            'without a guard must end without it; to start in the middle, use {"at": …, "guard": None}'
        )
    if found and not guard:
        raise CursorError(
            f"{name} without a guard resumes from its own cursors; got the guarded {cursor!r}; pass "
            "guard=True, or start from its value of 'at'"
        )
    return (cursor["at"], cursor["guard"]) if found else (cursor, None)


def digest(name: str, values: Iterable[Any]) -> str:
    """Return a digest of cursor values.

    :raises CursorError: for a value that is not allowed in a cursor.
    """
    state = hasher()
    for index, value in enumerate(values):
        state.update(line(value, f"{name}[{index}]"))
    return state.hexdigest()


def line(value: Any, name: str = "item") -> bytes:
    """Return a cursor value as a line of bytes, for a digest.

    :param name: name of the value, for errors. :raises CursorError: for a value that is not allowed in a
        cursor.
    """
    if type(value) is int and -_SMALL < value < _SMALL:
        return b"%d\n" % value  # same result as the line below, in a tenth of the time
    return json.dumps(encode(value, name), sort_keys=True).encode() + b"\n"


def compare(what: str, proof: Any, found: Any) -> None:
    """Compare the proof in a cursor, if there is one, with the current one.

    :param what: name of the collection, for the error. :raises CollectionChanged: if they differ.
    """
    if proof is not None and proof != found:
        raise CollectionChanged(
            f"{what} has changed since the job started (its digest was {proof}, now it is {found}): "
            "continuing could skip or repeat items; restore the data, or start the job again"
        )


class Witness(Protocol):
    """Proof that a position still means the same item, for cursors that are indexes."""

    def proof(self, cursor: Any) -> Any:
        """Return the proof to store next to a cursor, a value of a cursor's types; None for no proof."""
        ...

    def check(self, cursor: Any, proof: Any) -> None:
        """Compare the collection with a stored proof.

        :raises CollectionChanged: if the cursor no longer means the same item.
        """
        ...


class Origin:
    """Proof of the enumerator that a cursor belongs to, and of its position.

    An index has no meaning in a select, and a key has no meaning in another order, although all of them may be ints.

    :param what: description of the enumerator and its order; the same in every version of the code that
        continues with its cursors. :param place: proof of the position; None if the position itself
        identifies the item.
    """

    def __init__(self, what: str, place: Witness | None = None) -> None:
        self._what, self._place = what, place

    def proof(self, cursor: Any) -> tuple[str, Any]:
        """Return the origin, and the proof of the position."""
        return self._what, None if self._place is None else self._place.proof(cursor)

    def check(self, cursor: Any, proof: Any) -> None:
        """Compare both with a stored proof; a position that the user gave has no proof.

        :raises CollectionChanged: if the cursor belongs elsewhere, or means another item.
        """
        what, place = (None, None) if proof is None else proof
        if what not in {None, self._what}:
            raise CollectionChanged(
                f"the job stopped at a position in {what}, and resumes with {self._what}: the position has no meaning "
                "there; deploy the code that the job started with, or start the job again"
            )
        if self._place is not None:
            self._place.check(cursor, place)


class Ahead(NamedTuple):
    """Item beyond the cursor: its position, the number of items passed there, and whether it is done."""

    at: Any
    passed: int
    done: bool


class Tally:
    """Guard of an ordered, countable collection: the number of items, the number passed, and the last item.

    Without *guard* it only knows the position and the size.

    :param name: name of the enumerator, for errors. :param count: returns the number of items after a
        position; None is the beginning. :param last: returns the position of the last item after a position,
        or None if there is none. :ivar position: position of the cursor.
    """

    def __init__(
        self,
        name: str,
        cursor: Any,
        *,
        guard: bool,
        count: Callable[[Any], int],
        last: Callable[[Any], Any],
    ) -> None:
        self.position, proof = split(name, cursor, guard=guard)
        self._name, self._guard, self._count, self._last = name, guard, count, last
        if proof is not None and not (type(proof) is dict and list(proof) == ["passed", "total", "last"]):
            raise CursorError(f"{name} with guard=True resumes from its own cursor; got {cursor!r}")
        self._proof: dict[str, Any] | None = proof
        self._ahead: list[Ahead] = []
        self._gone: int | None = None
        """Number of items beyond the cursor that had left the collection when reading began; None if unknown."""
        self._total: int | None = None if proof is None else proof["total"]

    def expect(self, ahead: Iterable[tuple[Any, bool]]) -> None:
        """Expect items beyond the cursor; done ones among them may have left the collection.

        :param ahead: cursors of the items, in order, each with whether the item is done.
        """
        if not self._guard:
            return
        found = [(split(self._name, cursor, guard=True), done) for cursor, done in ahead]
        known = [Ahead(at, proof["passed"], done) for (at, proof), done in found]
        passed = 0 if self._proof is None else self._proof["passed"] or 0
        # An item that has left may be listed after later items, and before the cursor.
        self._ahead = sorted((each for each in known if each.passed > passed), key=lambda each: each.passed)
        # The cursor has not moved yet: these items have the initial numbers.
        if found and self._proof is None:
            begun = 0 if self.position is None else None
            self._proof = {**found[0][0][1], "passed": begun}
            self._total = self._proof["total"]

    def size(self) -> int:
        """Return the number of items; with a guard, the number when the job started."""
        if not self._guard:
            return self._count(None)
        if self._total is None:
            self._total = self._count(None)
        return self._total

    def over(self, pages: Iterable[Iterable[tuple[T, Any, int]]]) -> Iterator[Iterator[tuple[T, Any]]]:
        """Yield pages of items with their cursors.

        :param pages: pages of tuples of an item, its position and the number of items it counts for. Only the step to
            the next page counts and compares; read each page to its end before. :raises CollectionChanged: at the
            beginning or at the end, if *guard* finds a change.
        """
        position, proof = self.position, self._proof
        if not self._guard:
            yield from (((item, position) for item, position, _ in page) for page in pages)
            return
        if proof is None:
            passed = 0 if position is None else self.size() - self._count(position)
            total, last = self.size(), self._last(None)
        else:
            passed, total, last = proof["passed"], proof["total"], proof["last"]
            self._check_rest(passed, total, last)
        ahead = list(self._ahead)

        def counted(page: Iterable[tuple[T, Any, int]]) -> Iterator[tuple[T, Any]]:
            nonlocal passed, position
            for item, position, items in page:
                passed = self._after(position, items, passed, ahead) if ahead else passed + items
                yield item, guarded(position, {"passed": passed, "total": total, "last": last})

        for page in pages:
            yield counted(page)
        if ahead:
            self._refuse_lost(ahead)
            passed, position = ahead[-1].passed, ahead[-1].at
        self._compare("the number of items", total, passed)
        self._compare("the last item", last, position)

    def _check_rest(self, passed: int | None, total: int, last: Any) -> None:
        """Compare the items after the cursor, before any of them is read."""
        left, gone = self._count(self.position), self._may_be_gone(passed)
        if passed is not None and not total - passed - gone <= left <= total - passed:
            self._compare("the number of items after the cursor", total - passed, left)
        self._gone = None if passed is None else total - passed - left
        if self._ahead:
            _, beyond, _ = last_known = self._ahead[-1]
            self._compare(
                f"the number of items after {last_known.at!r}", total - beyond, self._count(last_known.at)
            )
        if left and not any(each.done and freeze(each.at) == freeze(last) for each in self._ahead):
            self._compare("the last item", last, self._last(self.position))

    def _may_be_gone(self, passed: int | None) -> int:
        """Return the maximum number of items beyond the cursor that may have left the collection."""
        before, gone = passed, 0
        for each in self._ahead:
            if each.done and before is not None:
                gone += each.passed - before
            before = each.passed
        return gone

    def _after(self, position: Any, items: int, passed: int | None, ahead: list[Ahead]) -> int:
        """Return the number of items passed after an item that was just read, including items before it that have left.

        :param ahead: the expected items that were not read yet; those up to this item are removed.
        """
        place = freeze(position)
        index = next((index for index, each in enumerate(ahead) if freeze(each.at) == place), len(ahead))
        self._refuse_lost(ahead[:index])
        before = ahead[index - 1].passed if index else passed
        self._leave_out(index, passed, before)
        met = ahead[index] if index < len(ahead) else None
        del ahead[: index + 1]
        if met is None:
            return (before or 0) + items
        if not met.done and before is not None:
            self._compare(f"the number of items up to {met.at!r}", met.passed, before + items)
        return met.passed

    def _leave_out(self, index: int, passed: int | None, before: int | None) -> None:
        """Count expected items that were not read; refuse more than had left, because another item then took a place.

        :param index: number of expected items that were not read. :param passed: number of items before them. :param
            before: number of items including them.
        """
        if index and self._gone is not None and passed is not None and before is not None:
            self._gone -= before - passed
            if self._gone < 0:
                self._compare("the number of items that have left beyond the cursor", before - passed, 0)

    def _refuse_lost(self, ahead: Iterable[Ahead]) -> None:
        for each in ahead:
            if not each.done:
                self._compare("the next item", each.at, None)

    def _compare(self, what: str, expected: Any, found: Any) -> None:
        if expected != found:
            raise CollectionChanged(
                f"what {self._name} reads has changed since the job started: {what} was {expected!r}, now "
                f"it is {found!r}; continuing could skip or repeat items; start the job again"
            )
