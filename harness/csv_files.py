"""Items from CSV files: rows read one after the other (I24, I25).

::

    csv_rows("prices.csv", cursor=cursor)                      # dicts, by the names in the first row
    csv_rows(file, cursor=cursor, header=False)                # lists
    csv_batches("prices.csv", cursor=cursor, batch_size=500)   # lists of dicts

**A source** is a path, or a text file that is open. A path is opened when the first row is asked for and closed when
iterating ends, in whatever way. An open file is the caller's to close; it is read from its beginning, and if it cannot
seek, from where it stands. Open it with ``newline=""``, as for :mod:`csv`.

**A cursor** is the index of a row, or of a path ``(index, byte)``, with the byte at which the row ends: a resumed job
goes on there, and does not read again what was done. In encodings that count otherwise than UTF-8 and the single-byte
ones, and in open files, the rows before are read and dropped, about two million a second. Either kind of cursor may be
given to either kind of source, and a job may be started by hand at an index.

**Rows.** Blank lines are none and have no index, nor has the header. A byte order mark is dropped. A row that has more
or fewer fields than the header is an error that names its line, for its values would stand under wrong names; with
``ragged=True`` it is read as by :class:`csv.DictReader`.

**The size** is counted by reading once more, when it is asked for: of a path at any time, of an open file if it can
seek and no row was read yet.
"""

from __future__ import annotations

import codecs
import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import file_digest
from itertools import chain, islice, takewhile
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias, cast

from harness import guards
from harness.enumerators import Enumerator, iterating
from harness.errors import CollectionChanged, CursorError

if TYPE_CHECKING:
    from io import BufferedReader

Source: TypeAlias = str | PathLike[str] | TextIO
Header: TypeAlias = bool | Sequence[str]

MARK = "\ufeff"
"""A byte order mark, as text."""

_CHUNK = 1 << 16


def csv_rows(
    source: Source,
    *,
    cursor: Any,
    header: Header = True,
    ragged: bool = False,
    encoding: str = "utf-8",
    guard: bool = False,
    dialect: Any = "excel",
    **options: Any,
) -> Enumerator[Any]:
    """Yield the rows of a CSV file (I24); see the module for what a row, a cursor and the size are.

    :param source: a path or an open text file.
    :param header: True if the first row names the fields; False for rows that are lists; or the names.
    :param ragged: whether rows of other lengths than the header are read: what is missing is None, what is too much
        a list under the key None.
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
    return Enumerator(table.rows(cursor), size=table.count)


def csv_batches(
    source: Source,
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
    """Yield the rows of a CSV file in lists of *batch_size*, each with the cursor of its last row (I25).

    The size counts rows, and *batch_size* may change between executions. Parameters and errors are those of
    :func:`csv_rows`.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise TypeError(f"csv_batches() takes a batch_size of 1 or more, found {batch_size!r}")
    table = _Table(
        "csv_batches()", source, header=header, ragged=ragged, encoding=encoding, guard=guard, dialect=dialect,
        options=options,
    )  # fmt: skip
    return Enumerator(_batches(table.rows(cursor), batch_size), size=table.count, batched=True)


def _batches(rows: Iterator[tuple[Any, Any]], batch_size: int) -> Iterator[tuple[list[Any], Any]]:
    batch, cursor = [], None
    with iterating(rows):
        for row, cursor in rows:
            batch.append(row)
            if len(batch) == batch_size:
                yield batch, cursor
                batch = []
        if batch:
            yield batch, cursor


class _Lines:
    """The lines of a file, without a byte order mark, and the byte at which the last one that was read ends."""

    def __init__(self, file: Iterable[str], encoding: str, offset: int) -> None:
        self._file, self._encoding, self.offset = file, encoding, offset

    def __iter__(self) -> Iterator[str]:
        encoding = self._encoding
        for line in self._file:
            first = self.offset == 0
            # As many bytes as characters, if it is ASCII: of that a string knows without being looked through.
            self.offset += len(line) if line.isascii() else len(line.encode(encoding))
            yield line.removeprefix(MARK) if first else line


class _Source:
    """A path or an open file, and what can be done with it."""

    def __init__(self, name: str, source: Source, encoding: str, *, guard: bool) -> None:
        kind = codecs.lookup(encoding).name
        self.path = Path(source) if isinstance(source, str | PathLike) else None
        self.file = None if isinstance(source, str | PathLike) else source
        name_of_file: object = getattr(source, "name", "the file")
        self.label = str(name_of_file if self.path is None else self.path)
        # The mark is dropped by us, who count its bytes.
        self.encoding = "utf-8" if kind == "utf-8-sig" else kind
        self.counts_bytes = self.path is not None and _counts_bytes(self.encoding)
        if self.path is None:
            read = getattr(source, "read", None)
            if read is None or not isinstance(read(0), str):
                raise TypeError(f"{name} takes a path or an open text file, found {type(source).__name__}")
            if guard and not self.seekable:
                raise TypeError(
                    f"{name} with guard=True reads {self.label} twice, but it cannot seek; give the path of a file"
                )

    @property
    def seekable(self) -> bool:
        return self.file is None or self.file.seekable()

    @contextmanager
    def opened(self) -> Iterator[TextIO]:
        """Give the file at its beginning; close it if it was opened here."""
        if self.path is not None:
            # No newline is translated, so that each counts as the bytes that it has.
            with self.path.open(encoding=self.encoding, newline="") as opened:
                yield opened
            return
        file = cast("TextIO", self.file)
        if self.seekable:
            file.seek(0)
        yield file

    def digest(self, file: TextIO) -> str:
        """Return a digest of all of the file, and go to its beginning."""
        file.seek(0)
        if self.path is not None:
            found = file_digest(cast("BufferedReader", file.buffer), guards.hasher).hexdigest()
        else:
            state = guards.hasher()
            while chunk := file.read(_CHUNK):
                state.update(chunk.encode("utf-8", "surrogatepass"))
            found = state.hexdigest()
        file.seek(0)
        return found

    def go_to(self, file: TextIO, offset: int) -> None:
        """Go to a byte at which a row ends.

        :raises CollectionChanged: if none ends there.
        """
        end = file.buffer.seek(0, os.SEEK_END)
        file.buffer.seek(max(offset - 1, 0))
        around = file.buffer.read(2)
        # Of a last row without a newline, that may have come later.
        if offset > end or (offset < end and not {*around} & {*b"\r\n"}):
            raise CollectionChanged(
                f"{self.label} has changed since the job began: the last row done ended at byte {offset}, where none "
                f"ends in the {end} bytes found; put back the file, or start the job anew"
            )
        file.seek(offset)

    def lines_before(self, offset: int) -> int:
        """Return how many lines end before a byte; only errors need it."""
        if offset == 0:
            return 0
        with self.opened() as file:
            lines = _Lines(file, self.encoding, 0)
            return sum(1 for _ in takewhile(lambda _: lines.offset <= offset, lines))


class _Table:
    """A source and how its rows are read."""

    def __init__(
        self,
        name: str,
        source: Source,
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
        self.source = _Source(name, source, encoding, guard=guard)
        self.reader: Callable[[Iterable[str]], Any] = lambda lines: csv.reader(lines, dialect, **options)
        self.reader(())  # refuses unknown dialects and options at once
        self.begun = False

    def count(self) -> int | None:
        """Return the number of rows, or None if that would need what cannot be had."""
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
        """Return what yields the rows after *cursor*, each with its own."""
        position, proof = guards.split(self.name, cursor, guard=self.guard)
        numbers = position if type(position) is tuple and len(position) == 2 else (position,)
        if position is not None and not all(type(each) is int and each >= 0 for each in numbers):
            raise CursorError(
                f"{self.name} resumes from None, the index of a row, or (index, byte), found {position!r}"
            )
        done = 0 if position is None else numbers[0] + 1
        return self._rows(done, numbers[-1] if len(numbers) == 2 else None, proof)

    def _rows(self, done: int, offset: int | None, proof: Any) -> Iterator[tuple[Any, Any]]:
        self.begun = True
        source, ragged = self.source, self.ragged
        with source.opened() as file:
            found = source.digest(file) if self.guard else None
            guards.compare(source.label, proof, found)
            start = 0
            lines = _Lines(file, source.encoding, 0)
            reader = self.reader(lines)
            try:
                names = self._names(reader)
                if offset is not None and source.counts_bytes:
                    source.go_to(file, offset)
                    start, lines = offset, _Lines(file, source.encoding, offset)
                    reader = self.reader(lines)
                else:
                    self._drop(reader, done)
                width = len(names or ())
                for index, fields in enumerate(filter(None, reader), done):
                    if names is None:
                        row: Any = fields
                    elif len(fields) == width:
                        row = dict(zip(names, fields))  # noqa: B905 - checked, and faster
                    else:
                        row = _ragged(names, fields, allowed=ragged)
                    position = (index, lines.offset) if source.counts_bytes else index
                    yield row, guards.guarded(position, found) if self.guard else position
            except (csv.Error, UnicodeDecodeError) as error:
                line = source.lines_before(start) + reader.line_num
                coded = isinstance(error, UnicodeDecodeError)  # which is found some lines ahead
                where, way_out = ("after line", "; give its encoding=") if coded else ("line", "")
                raise csv.Error(f"{source.label}, {where} {line}: {error}{way_out}") from error
            if self.guard:
                guards.compare(source.label, found, source.digest(file))

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
                f"{self.source.label} has changed since the job began: {rows} rows of it were done, found {dropped}; "
                "put back the file, or start the job anew"
            )


def _ragged(names: list[str], fields: list[str], *, allowed: bool) -> dict[str | None, Any]:
    width, found = len(names), len(fields)
    if not allowed:
        raise csv.Error(
            f"found {found} fields, the header has {width}; mend the row, or read it with ragged=True"
        )
    row: dict[str | None, Any] = {**dict.fromkeys(names), **dict(zip(names, fields, strict=False))}
    return {**row, None: fields[width:]} if found > width else row


def _distinct(name: str, header: Sequence[str]) -> list[str]:
    names = list(header)
    if isinstance(header, str) or not all(isinstance(each, str) for each in names):
        raise TypeError(f"{name} takes True, False or a list of names as header, found {header!r}")
    if len(set(names)) < len(names):
        raise TypeError(f"{name} has a name twice, which a dict cannot hold: {names!r}")
    return names


def _counts_bytes(encoding: str) -> bool:
    """Return whether text that is encoded anew has the bytes that it had: in UTF-8 and in single-byte encodings."""
    if encoding in {"utf-8", "ascii"}:
        return True
    low, high = bytes(range(128)), bytes(range(128, 256))
    text = high.decode(encoding, "replace")
    # One that has no high bytes at all is one with escape sequences.
    single = len(text) == 128 and set(text) != {"\ufffd"}
    return single and low.decode(encoding, "replace") == low.decode("ascii")
