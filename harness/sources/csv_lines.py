"""Files of CSV rows: by path or open, read line by line, with the byte at which a line ends."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import file_digest
from itertools import takewhile
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeAlias, cast

from harness.errors import CollectionChanged
from harness.runtime import guards

if TYPE_CHECKING:
    from io import BufferedReader

Given: TypeAlias = str | PathLike[str] | TextIO

MARK = "\ufeff"
"""Byte order mark, as text."""

_CHUNK, _WINDOW = 1 << 16, 1 << 10


class Lines:
    """Lines of a file, without a byte order mark.

    :ivar line: last line read. :ivar offset: byte at which it ends.
    """

    def __init__(self, file: Iterable[str], encoding: str, offset: int) -> None:
        self._file, self._encoding, self.offset, self.line = file, encoding, offset, ""

    def __iter__(self) -> Iterator[str]:
        encoding = self._encoding
        for line in self._file:
            first = self.offset == 0
            # ASCII has one byte per character, and a string knows without a search whether it is ASCII.
            self.offset += len(line) if line.isascii() else len(line.encode(encoding))
            self.line = line.removeprefix(MARK) if first else line
            yield self.line


class Source:
    """Path or open file."""

    def __init__(self, name: str, source: Given, encoding: str, *, guard: bool) -> None:
        kind = codecs.lookup(encoding).name
        self.path = Path(source) if isinstance(source, str | PathLike) else None
        self.file = None if isinstance(source, str | PathLike) else source
        name_of_file: object = getattr(source, "name", "the file")
        self.label = str(name_of_file if self.path is None else self.path)
        # This class removes the mark, because it counts its bytes.
        self.encoding = "utf-8" if kind == "utf-8-sig" else kind
        self.counts_bytes = self.path is not None and _counts_bytes(self.encoding)
        if self.path is None:
            read = getattr(source, "read", None)
            if read is None or not isinstance(read(0), str):
                raise TypeError(f"{name} takes a path or an open text file; got {type(source).__name__}")
            if guard and not self.seekable:
                raise TypeError(
                    f"{name} with guard=True reads {self.label} twice, but it cannot seek; give the path of a file"
                )

    @property
    def seekable(self) -> bool:
        """True if it can be read a second time."""
        return self.file is None or self.file.seekable()

    @contextmanager
    def opened(self) -> Iterator[TextIO]:
        """Yield the file at its beginning; close it if it was opened here."""
        if self.path is not None:
            # No newline is translated, so that each counts with its real bytes.
            with self.path.open(encoding=self.encoding, newline="") as opened:
                yield opened
            return
        file = cast("TextIO", self.file)
        if self.seekable:
            file.seek(0)
        yield file

    def digest(self, file: TextIO) -> str:
        """Return a digest of the whole file, and go to its beginning."""
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
        # A last row may have got its newline later.
        if offset > end or (offset < end and not {*around} & {*b"\r\n"}):
            raise CollectionChanged(
                f"{self.label} has changed since the job started: the last row done ended at byte {offset}, "
                f"but now no row of the {end} bytes ends there; restore the file, or start the job again"
            )
        file.seek(offset)

    def line_before(self, file: TextIO, offset: int) -> str:
        """Return the line that ends at a byte, and go there."""
        start, text = offset, b""
        while start > 0 and not {*text.rstrip(b"\r\n")} & {*b"\r\n"}:
            start = max(0, start - _WINDOW)
            file.buffer.seek(start)
            text = file.buffer.read(offset - start)
        body = text.rstrip(b"\r\n")
        begin = max(body.rfind(b"\n"), body.rfind(b"\r")) + 1
        file.seek(offset)
        # Text before the window's first newline is a whole line only at the beginning of the file.
        return text[begin:].decode(self.encoding, "replace").removeprefix(MARK)

    def lines_before(self, offset: int) -> int:
        """Return the number of lines that end before a byte; only errors need it."""
        if offset == 0:
            return 0
        with self.opened() as file:
            lines = Lines(file, self.encoding, 0)
            return sum(1 for _ in takewhile(lambda _: lines.offset <= offset, lines))


def _counts_bytes(encoding: str) -> bool:
    """Return whether decoding and encoding gives the same bytes: true for UTF-8 and single-byte encodings."""
    if encoding in {"utf-8", "ascii"}:
        return True
    low, high = bytes(range(128)), bytes(range(128, 256))
    text = high.decode(encoding, "replace")
    # An encoding without high bytes uses escape sequences.
    single = len(text) == 128 and set(text) != {"\ufffd"}
    return single and low.decode(encoding, "replace") == low.decode("ascii")
