"""Window of items beyond the cursor, with their states.

The entries are in the order in which the items are read. When the first entry is done, the cursor of the progress moves
past it and past all following done entries. So the cursor never passes unfinished work.

**After an interruption** the entries are restored from the record, and reading begins at the cursor. An item that is
read again replaces its entry; a done item is skipped. The source determines how the entry of an item is found:

* ``keyed``: the cursor is a key, which alone identifies the item.
* ``until``: a batch is all that lies between two cursors. Its source cuts batches at the cursors of the entries.
* ``positional``: the cursor is a position, which identifies the item only while nothing has changed. All entries are
  compared before any work begins.
* If the source says nothing about its pairs, an item is skipped if its cursor matches an entry and the entry before
  that was read too.

The number of entries is limited, in items and in bytes of the record.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.concurrency.kept_items import Beyond
from harness.cursor import encode
from harness.errors import CollectionChanged, CursorError, JobDefinitionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.progress import Progress

SPAN = 8
"""Maximum items read beyond the cursor, for each concurrent item: a slow item delays the others only beyond that."""

BYTES = 24 * 1024
"""Approximate size limit of the entries in a record; half of the items may be read twice after an interruption."""


def is_concurrent(job: Any) -> bool:
    """Return whether an execution needs a window: for several items at a time, or for stored entries."""
    return number_of(job) > 1 or bool(job.execution.progress.beyond)


def number_of(job: Any) -> int:
    """Return the maximum number of concurrent items.

    :raises JobDefinitionError: if a property returns anything but a number of 1 or more.
    """
    number = job.concurrency
    if type(number) is not int or number < 1:
        raise JobDefinitionError(
            f"{type(job).__name__}.concurrency: got {number!r}; it takes a whole number of 1 or more"
        )
    return number


def refuse_transaction(cls: Any, durability: Any) -> None:
    """Refuse several items at a time in one transaction.

    :raises JobDefinitionError: saying what to do.
    """
    if not (durability.transactional and type(cls.concurrency) is int and cls.concurrency > 1):
        return
    if not callable(getattr(cls, "new_session", None)):
        raise JobDefinitionError(
            f"{cls.__name__} has concurrency = {cls.concurrency} and {durability}, but its items would share "
            "self.session; define new_session(self), which returns a session for one item, or remove concurrency"
        )
    if durability.items != 1:
        raise JobDefinitionError(
            f"{cls.__name__} has concurrency = {cls.concurrency} and {durability}, but each item has a transaction of "
            "its own; use with_transaction()"
        )


def refuse_serial(job: Any, enumerator: Any) -> None:
    """Refuse a source whose items must be done one after the other, and a transaction that they would share.

    :raises JobDefinitionError: saying what to do.
    """
    refuse_transaction(type(job), job.execution.durability)
    if enumerator.serial is not None and is_concurrent(job):
        raise JobDefinitionError(
            f"{type(job).__name__} has concurrency = {number_of(job)}, but {enumerator.serial} is read one item at a "
            "time; remove concurrency, or iterate the outer items and do the inner ones in each_iteration; for a "
            "parallel run, start more instances"
        )


class Entry:
    """Item that was read beyond the cursor.

    :ivar cursor: cursor of the item. :ivar done: whether it is done. :ivar proof: proof for a later
        comparison of its cursor. :ivar weight: number of items that the entry counts for. :ivar before: the entry
        before it in the record that it comes from; None for the first. :ivar met: whether this execution has
        read it.
    """

    __slots__ = ("before", "cursor", "done", "met", "proof", "weight")

    def __init__(self, cursor: Any, proof: Any, *, done: bool = False, before: Entry | None = None) -> None:
        self.cursor, self.proof, self.done, self.before = cursor, proof, done, before
        self.weight, self.met = 1, False


class Window:
    """Entries of one execution, and the resulting position.

    :param progress: position that the window moves, and entries of the previous execution. :param trusted: whether the
        cursor alone identifies an item, or the source cuts batches at the entries. :param cut: whether the source cuts
        at all entries before it reads new items.
    """

    def __init__(self, progress: Progress, *, trusted: bool, cut: bool = False) -> None:
        self._progress, self._trusted, self._cut = progress, trusted, cut
        self._entries: list[Entry] = []
        for each in progress.beyond:
            before = self._entries[-1] if self._entries else None
            self._entries.append(Entry(each.cursor, each.proof, done=each.done, before=before))
        self._read = 0
        """Number of entries, from the first on, that this execution has read."""
        self._largest = 1
        self._latest: tuple[Any] | None = None
        self._newest: Entry | None = None
        """First new item since the last item from the record; unread entries did not come before it."""
        self.in_progress = 0
        """Number of items in progress, with their weights."""
        self.items_commit = False
        """True if each item commits its work with the record."""
        self.proof = progress.proof
        """The proof of the cursor."""

    @property
    def ends(self) -> list[Any]:
        """Cursors of the entries that have not been read again yet."""
        return [each.cursor for each in self._entries[self._read :]]

    def has_room(self, most: int) -> bool:
        """Return whether another item may be read, if *most* may be in progress."""
        return self._read < max(1, min(SPAN * most, BYTES // self._largest))

    def add(self, cursor: Any, proof: Any, weight: int) -> Entry:
        """Return the entry of an item that was just read; it is done if an earlier execution has done it.

        :raises CursorError: if the item before it has the same cursor, which would mark both as done.
        """
        if self._latest is not None and self._latest[0] == cursor:
            raise CursorError(
                f"two items in a row have the cursor {cursor!r}, so it is unknown which of them is done; with "
                "concurrency each item needs its own cursor"
            )
        self._latest = (cursor,)
        entry = self._known(cursor)
        if entry is None:
            if self._cut:
                self._pass_over(len(self._entries))
            entry = Entry(cursor, proof)
            self._newest = self._newest or entry
            self._entries.insert(self._read, entry)
        else:
            self._newest = None
        entry.cursor, entry.proof, entry.weight, entry.met = cursor, proof, weight, True
        self._read += 1
        size = len(json.dumps(encode(cursor))) + (
            0 if proof is None else len(json.dumps(encode(proof, "proof")))
        )
        self._largest = max(self._largest, size)
        if entry.done:
            self._move()
        else:
            self.in_progress += weight
        return entry

    def finish(self, entry: Entry, *, counts: bool = True) -> None:
        """Record that an item is done, and move the cursor past all items that are done without a gap.

        :param counts: False for an item that was set aside.
        """
        entry.done = True
        self.in_progress -= entry.weight
        if counts:
            self._progress.done += entry.weight
        self._move()

    def leave(self, entry: Entry) -> None:
        """Record that an unfinished item is no longer in progress."""
        self.in_progress -= entry.weight

    def is_first(self, entry: Entry) -> bool:
        """Return whether all items before an item are done."""
        return bool(self._entries) and self._entries[0] is entry

    def order(self, entry: Entry) -> int:
        """Return the number of unfinished or unpassed items before one."""
        return self._entries.index(entry) if entry in self._entries else 0

    def all_read(self) -> None:
        """Move past the entries of items that were not read again: they have left the collection."""
        if self._newest is not None and not _is_guarded(self._newest.cursor):
            del self._entries[
                self._read :
            ]  # the cursor stays before the new items, which may come after these
        self._entries, self._read = self._in_order()
        self._pass_over(len(self._entries))

    def beyond(self) -> list[Beyond]:
        """Return the entries for the record: all up to the last done entry."""
        entries, _ = self._in_order()
        number = next((index for index in range(len(entries), 0, -1) if entries[index - 1].done), 0)
        return [Beyond(each.cursor, each.done, each.proof) for each in entries[:number]]

    def _in_order(self) -> tuple[list[Entry], int]:
        """Return the entries in the order of the source, and how many of them were read or have left.

        If a new item is read instead of some entries, there are two cases. Either these entries have left the
        collection, and stood before the new item. Or the new item was inserted among them; a guard refuses that before
        the item is read. Without a guard the entries stay behind the new item: with a cursor of theirs, the position
        might pass the new item before it is done.
        """
        read, left = self._entries[: self._read], self._entries[self._read :]
        if not left or self._newest is None or not _is_guarded(self._newest.cursor):
            return self._entries, self._read
        if self._newest not in read:
            return read, len(read)  # the cursor has passed the new item
        index, left = read.index(self._newest), [entry for entry in left if entry.done]
        return [*read[:index], *left, *read[index:]], len(read) + len(left)

    def _pass_over(self, index: int) -> None:
        """Move past the entries up to one: they were not read, because they have left the collection.

        If a cursor alone identifies the item, done entries stay: a guard counts them.
        """
        rest = [entry for entry in self._entries[self._read : index] if entry.done and self._trusted]
        self._entries[self._read : index] = rest
        self._read += len(rest)
        self._move()

    def _known(self, cursor: Any) -> Entry | None:
        """Find the entry of an item in the record; skipped entries have left the collection."""
        place = _place(cursor)
        for index in range(self._read, len(self._entries)):
            entry = self._entries[index]
            if _place(entry.cursor) == place:
                self._pass_over(index)
                if entry.done and not (self._trusted or entry.before is None or entry.before.met):
                    # The batch may begin at another item now, so a part of it may not be done.
                    entry.done = False
                    self._progress.done = max(0, self._progress.done - 1)
                return entry
        return None

    def _move(self) -> None:
        passed = 0
        for entry in self._entries[: self._read]:
            if not entry.done:
                break
            passed += 1
        if passed:
            last = self._entries[passed - 1]
            self._progress.cursor, self.proof = last.cursor, last.proof
            del self._entries[:passed]
            self._read -= passed


class LowWater:
    """Witness of an execution with a window: the proof of the cursor is that of its item when it was read."""

    def __init__(self, window: Window) -> None:
        self._window = window

    def proof(self, cursor: Any) -> Any:
        """Return the proof."""
        del cursor
        return self._window.proof

    def check(self, cursor: Any, proof: Any) -> None:
        """Do nothing: the witness of the enumerator has compared."""


def refuse_change(expected: Sequence[Any], met: Sequence[Any]) -> None:
    """Compare the positions in a record with those that were read; with a guard, also the digest of the source.

    :raises CollectionChanged: if they differ.
    """
    found, wanted = list(met), list(expected)
    if not all(map(_is_guarded, (*found, *wanted))):  # the new code may have added or removed a guard
        found, wanted = [_place(each) for each in found], [_place(each) for each in wanted]
    if found != wanted:
        index = next(
            (i for i, (one, other) in enumerate(zip(wanted, found, strict=False)) if one != other), len(found)
        )
        now = repr(met[index]) if index < len(met) else "nothing"
        raise CollectionChanged(
            f"the collection has changed since the job stopped: items were in progress up to {expected[-1]!r}, and "
            f"{now} is now in the place of {expected[index]!r}; restore the items, or start the job again"
        )


def _place(cursor: Any) -> Any:
    # The proof of a guarded cursor counts items, which says nothing about which item it is.
    return cursor["at"] if _is_guarded(cursor) else cursor


def _is_guarded(cursor: Any) -> bool:
    return type(cursor) is dict and list(cursor) == ["at", "guard"]
