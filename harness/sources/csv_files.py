"""Items from CSV files, read row by row.

::

    csv_rows("prices.csv", cursor=cursor)                      # dicts, by the names in the first row
    csv_rows(file, cursor=cursor, header=False)                # lists
    csv_batches("prices.csv", cursor=cursor, batch_size=500)   # lists of dicts

**A source** is a path, or a text file that is open. A path is opened when the first row is read, and closed
at any end of the iteration. The caller closes an open file; it is read from its beginning, or, if it cannot
seek, from its current position. Open it with ``newline=""``, as for :mod:`csv`.

**A cursor** is the index of a row, or of a path ``(index, byte, check)``, with the byte at which the row
ends: a resumed job continues there, and does not read earlier rows again. In encodings other than UTF-8 and
single-byte ones, and in open files, the earlier rows are read and dropped, about two million a second. Both
kinds of cursors work with both kinds of sources, and a job may be started by hand at an index.

**A changed file.** A resumed job compares the header and the last line of the row at its cursor with the
earlier ones, and stops with CollectionChanged if they differ: a row was added or removed before the cursor,
or columns were renamed or swapped. That needs no second reading. For a path, ``check`` in the cursor has the
data for this. For an open file, and in other encodings, the job's progress has it, if ``build_enumerator``
returns the enumerator, possibly within throttle() or nested(). Changes that do not affect that row, its byte
or the header are noticed only with ``guard=True``, which compares a digest of the whole file.

**Rows.** Blank lines are not rows and have no index, and neither has the header. A byte order mark is
dropped. A row with more or fewer fields than the header raises an error that names its line, because its
values would have wrong names; with ``ragged=True`` it is read as by :class:`csv.DictReader`.

**The size** is counted by a second reading when it is needed: for a path at any time, for an open file if it
can seek and no row was read yet.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeAlias
from zlib import crc32

from harness.errors import CollectionChanged, CursorError
from harness.runtime import guards
from harness.sources.csv_lines import MARK, Given, Lines, Source
from harness.sources.enumerators import Enumerator, iterating

if TYPE_CHECKING:
    pass

ORIGIN = "a CSV file"
"""Name of the collection that its cursors belong to."""

Header: TypeAlias = bool | Sequence[str]


def csv_rows(
    source: Given,
    *,
    cursor: Any,
    header: Header = True,
    ragged: bool = False,
    encoding: str = "utf-8",
    guard: bool = False,
    dialect: Any = "excel",
    **options: Any,
) -> Enumerator[Any]:
    """Yield the rows of a CSV file; see the module for what a row, a cursor and the size are.

    :param source: a path or an open text file.
    :param header: True if the first row names the fields; False for rows that are lists; or the names.
    :param ragged: whether rows of other lengths than the header are read: missing fields are None, extra
        fields are a list under the key None.
    :param encoding: of the file at a path.
    :param guard: check that the file is the same in all executions, by a digest of all of it: it is read once more
        at the beginning of each and at the end.
    :param dialect: a name, a :class:`csv.Dialect`, and *options* such as ``delimiter=";"``, as of :func:`csv.reader`.
    :raises CursorError: if the cursor is none of this enumerator.
    :raises CollectionChanged: while iterating, if the file ends before the cursor or no row ends there, or if
        *guard* finds another file.
    :raises csv.Error: while iterating, if a row cannot be read, naming file and line.
    """
    table = _Table(
        "csv_rows()", source, header=header, ragged=ragged, encoding=encoding, guard=guard, dialect=dialect,
        options=options,
    )  # fmt: skip
    table.rows(cursor)  # refuses a wrong cursor before anything is read
    return Enumerator(
        lambda: _noted(table, table.rows(cursor)), size=table.count, witness=table.seen, positional=True,
        origin=ORIGIN,
    )  # fmt: skip


def csv_batches(
    source: Given,
    *,
    cursor: Any,
    batch_size: int = 100,
    header: Header = True,
    ragged: bool = False,
    encoding: str = "utf-8",
    guard: bool = False,
    dialect: Any = "excel",
    **options: Any,
) -> Enumerator[list[Any]]:
    """Yield the rows of a CSV file in lists of *batch_size*, each with the cursor of its last row.

    The size counts rows, and *batch_size* may change between executions. Parameters and errors are those of
    :func:`csv_rows`.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise TypeError(f"csv_batches() takes a batch_size of 1 or more; got {batch_size!r}")
    table = _Table(
        "csv_batches()", source, header=header, ragged=ragged, encoding=encoding, guard=guard, dialect=dialect,
        options=options,
    )  # fmt: skip
    table.rows(cursor)  # refuses a wrong cursor before anything is read

    def until(*ends: Any) -> Enumerator[list[Any]]:
        return batched(lambda: _noted(table, _batches(table.rows(cursor), batch_size, ends)))

    batched = partial(
        Enumerator,
        size=table.count,
        batched=True,
        witness=table.seen,
        positional=True,
        origin=ORIGIN,
        until=until,
    )
    return batched(lambda: _noted(table, _batches(table.rows(cursor), batch_size)))


def _noted(table: _Table, pairs: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Yield the pairs; if a cursor is only an index, record the row that each one ends with."""
    if table.source.counts_bytes:
        return pairs
    return _noting(table.seen, pairs)


def _noting(seen: _Seen, pairs: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    with iterating(pairs):
        for pair in pairs:
            seen.note()
            yield pair


def _batches(
    rows: Iterator[tuple[Any, Any]], batch_size: int, ends: Sequence[Any] = ()
) -> Iterator[tuple[list[Any], Any]]:
    batch, cursor = [], None
    left = deque(map(_index, ends))
    with iterating(rows):
        for row, cursor in rows:
            batch.append(row)
            if len(batch) == batch_size if not left else _index(cursor) >= left[0]:
                yield batch, cursor
                batch = []
                if left:
                    left.popleft()
        if batch:
            yield batch, cursor


def _index(cursor: Any) -> int:
    """Return the index of the row at a cursor of this module."""
    position = cursor["at"] if type(cursor) is dict else cursor
    return int(position[0] if type(position) is tuple else position)


class _Seen:
    """Proof of cursors that are an index: checks of the rows at such cursors.

    :ivar latest: index of the last row read, its last line, and the beginning of its check. :ivar expected:
        check of the row at which reading starts, if known.
    """

    def __init__(self) -> None:
        self.latest: tuple[int, str, int] = (-1, "", 0)
        self.expected: int | None = None
        self._passed: list[tuple[int, str, int]] = []

    def note(self) -> None:
        """Keep the last row read, with which an item ends, and that of the previous item."""
        self._passed = [*self._passed[-1:], self.latest]

    def proof(self, cursor: Any) -> int | None:
        return next((_check(line, seed) for index, line, seed in self._passed if index == cursor), None)

    def check(self, cursor: Any, proof: Any) -> None:
        found = self.proof(cursor)
        if found is None:
            self.expected = proof  # compared when the rows before the cursor are dropped
        elif proof is not None and found != proof:
            raise _changed("the CSV file", cursor)


class _Table:
    """Source, and the way to read its rows."""

    def __init__(
        self,
        name: str,
        source: Given,
        *,
        header: Header,
        ragged: bool,
        encoding: str,
        guard: bool,
        dialect: Any,
        options: dict[str, Any],
    ) -> None:
        self.name, self.ragged, self.guard = name, ragged, guard
        self.header = header if isinstance(header, bool) else _distinct(name, header)
        self.source = Source(name, source, encoding, guard=guard)
        self.reader: Callable[[Iterable[str]], Any] = lambda lines: csv.reader(lines, dialect, **options)
        self.reader(())  # refuses unknown dialects and options before anything is read
        self.begun = False
        self.seen = _Seen()

    def count(self) -> int | None:
        """Return the number of rows, or None if it cannot be counted."""
        if self.source.path is None and (self.begun or not self.source.seekable):
            return None
        try:
            with self.source.opened() as file:
                lines = chain([next(file, "").removeprefix(MARK)], file)
                rows = sum(map(bool, self.reader(lines)))
        except (csv.Error, UnicodeError):
            return None  # to be said where it is reached
        return max(rows - 1, 0) if self.header is True else rows

    def rows(self, cursor: Any) -> Iterator[tuple[Any, Any]]:
        """Return an iterator of the rows after *cursor*, each with its own cursor."""
        position, proof = guards.split(self.name, cursor, guard=self.guard)
        numbers = position if type(position) is tuple and len(position) in {2, 3} else (position,)
        if position is not None and not all(type(each) is int and each >= 0 for each in numbers):
            raise CursorError(
                f"{self.name} resumes from None, the index of a row, or (index, byte, check); got {position!r}"
            )
        done = 0 if position is None else numbers[0] + 1
        offset, check = (*numbers, None, None)[1:3]
        return self._rows(done, offset, check, proof)

    def _rows(
        self, done: int, offset: int | None, check: int | None, proof: Any
    ) -> Iterator[tuple[Any, Any]]:
        self.begun = True
        source, ragged, by_byte = self.source, self.ragged, self.source.counts_bytes
        with source.opened() as file:
            found = source.digest(file) if self.guard else None
            guards.compare(source.label, proof, found)
            start = 0
            lines = Lines(file, source.encoding, 0)
            reader = self.reader(lines)
            try:
                names = self._names(reader)
                seed = _check("\x1f".join(names), 0) if names and self.header is True else 0
                if offset is not None and source.counts_bytes:
                    source.go_to(file, offset)
                    if check is not None:
                        self._compare(done, check, _check(source.line_before(file, offset), seed))
                    start, lines = offset, Lines(file, source.encoding, offset)
                    reader = self.reader(lines)
                elif done:
                    self._drop(reader, done)
                    expected = self.seen.expected if check is None else check
                    if expected is not None:
                        self._compare(done, expected, _check(lines.line, seed))
                width = len(names or ())
                for index, fields in enumerate(filter(None, reader), done):
                    if names is None:
                        row: Any = fields
                    elif len(fields) == width:
                        row = dict(zip(names, fields))  # noqa: B905 - checked, and faster
                    else:
                        row = _ragged(names, fields, allowed=ragged)
                    position: Any = index
                    if by_byte:
                        # Same as _check(), without the cost of a call; strictly decoded text has no surrogates.
                        position = index, lines.offset, crc32(lines.line.encode(), seed)
                    else:
                        self.seen.latest = index, lines.line, seed
                    yield row, guards.guarded(position, found) if found else position
            except (csv.Error, UnicodeDecodeError) as error:
                line = source.lines_before(start) + reader.line_num
                coded = isinstance(error, UnicodeDecodeError)  # which is found some lines ahead
                where, way_out = ("after line", "; give its encoding=") if coded else ("line", "")
                raise csv.Error(f"{source.label}, {where} {line}: {error}{way_out}") from error
            if self.guard:
                guards.compare(source.label, found, source.digest(file))

    def _compare(self, done: int, expected: int, found: int) -> None:
        if expected != found:
            raise _changed(self.source.label, done - 1)

    def _names(self, reader: Iterator[list[str]]) -> list[str] | None:
        """Return the names of the fields, which may be the first row."""
        if self.header is not True:
            return self.header or None
        try:
            return _distinct("the header", next(filter(None, reader), []))
        except TypeError as error:
            raise csv.Error(f"{error}; read lists with header=False, or give the names") from error

    def _drop(self, reader: Iterator[list[str]], rows: int) -> None:
        dropped = sum(1 for _ in islice(filter(None, reader), rows))
        if dropped < rows:
            raise CollectionChanged(
                f"{self.source.label} has changed since the job started: {rows} of its rows were done, now "
                f"it has only {dropped}; restore the file, or start the job again"
            )


def _changed(label: str, index: int) -> CollectionChanged:
    return CollectionChanged(
        f"{label} has changed since the job stopped: its header or its row {index} is different; restore "
        "the file, or start the job again"
    )


def _check(line: str, seed: int) -> int:
    """Return the check of the row that ends with a line, under a header."""
    return crc32(line.encode("utf-8", "surrogatepass"), seed)


def _ragged(names: list[str], fields: list[str], *, allowed: bool) -> dict[str | None, Any]:
    width, found = len(names), len(fields)
    if not allowed:
        raise csv.Error(
            f"got {found} fields, but the header has {width}; correct the row, or read it with ragged=True"
        )
    row: dict[str | None, Any] = {**dict.fromkeys(names), **dict(zip(names, fields, strict=False))}
    return {**row, None: fields[width:]} if found > width else row


def _distinct(name: str, header: Sequence[str]) -> list[str]:
    names = list(header)
    if isinstance(header, str) or not all(isinstance(each, str) for each in names):
        raise TypeError(f"{name} takes True, False or a list of names as header; got {header!r}")
    if len(set(names)) < len(names):
        raise TypeError(f"{name} has duplicate names, which a dict cannot hold: {names!r}")
    return names
