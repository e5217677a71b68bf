"""Rules of :mod:`harness.sources.csv_files` beyond what holds for every enumerator."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import InlineRun, IterationJob, csv_batches, csv_rows, run
from harness.errors import CollectionChanged, CursorError
from harness.stops import Count, Every
from tests.enumerator_cases import OneWay


def rows(source: Any, cursor: Any = None, **options: Any) -> list[Any]:
    """Return the rows without their cursors."""
    return [row for row, _ in csv_rows(source, cursor=cursor, **options)]


def cursors(source: Any, **options: Any) -> list[Any]:
    """Return the cursors without their rows."""
    return [cursor for _, cursor in csv_rows(source, cursor=None, **options)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a file of two rows."""
    path = tmp_path / "prices.csv"
    path.write_bytes(b"id,price\r\n1,10\r\n2,20\r\n")
    return path


FIELDS = st.text(st.sampled_from("aé€\U0001f600,;\"\n\r' "), max_size=4)


@given(
    table=st.lists(st.lists(FIELDS, min_size=2, max_size=2), max_size=6),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030", "utf-32-le"]),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    delimiter=st.sampled_from(",;\t"),
    blank=st.sets(st.integers(0, 6)),
    ended=st.booleans(),
)
def test_any_file_is_read_as_by_csv_reader(  # noqa: PLR0917 - one a strategy
    tmp_path_factory: pytest.TempPathFactory,
    table: list[list[str]],
    encoding: str,
    newline: str,
    delimiter: str,
    blank: set[int],
    ended: bool,
) -> None:
    """Rows equal those of csv.reader for any encoding, newlines, delimiter, blank lines and cursor."""
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, delimiter=delimiter, lineterminator=newline, quoting=csv.QUOTE_ALL)
    for number, fields in enumerate(table):
        writer.writerow(fields)
        lines.write(newline if number in blank else "")
    whole = lines.getvalue() if ended else lines.getvalue().removesuffix(newline)
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes(whole.encode(encoding))
    options: dict[str, Any] = {"header": False, "delimiter": delimiter, "encoding": encoding}
    found = list(csv_rows(path, cursor=None, **options))
    assert [row for row, _ in found] == table
    assert csv_rows(path, cursor=None, **options).size == len(table)
    for index, (_, cursor) in enumerate(found):
        assert list(csv_rows(path, cursor=cursor, **options)) == found[index + 1 :]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r", "utf8", "UTF-8"])
def test_a_path_is_resumed_at_a_byte(tmp_path: Path, encoding: str) -> None:
    """If the encoding has byte positions, a cursor holds the byte where its row ends, and earlier rows are not read."""
    path = tmp_path / "x.csv"
    letter = "a" if encoding == "ascii" else b"\xe4".decode("koi8-r" if encoding == "koi8-r" else "latin-1")
    path.write_text(f'{letter},"{letter}\n"\nb,c\nd,e', encoding=encoding, newline="")
    found = list(csv_rows(path, cursor=None, header=False, encoding=encoding))
    data = path.read_bytes()
    assert [row for row, _ in found] == [[letter, f"{letter}\n"], ["b", "c"], ["d", "e"]]
    assert [index for _, (index, _, _) in found] == [0, 1, 2]
    assert [data[offset:] for _, (_, offset, _) in found] == [b"b,c\nd,e", b"d,e", b""]
    first, second = found[0][1], found[1]
    last_line = first[1] - 3  # which is compared, with the newline before it
    path.write_bytes(b"\xff" * last_line + data[last_line:])
    rest = csv_rows(path, cursor=first, header=["x", "y"], encoding=encoding)
    assert next(iter(rest)) == ({"x": "b", "y": "c"}, second[1])


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-7", "hz", "iso2022-jp", "shift_jis", "cp500"]
)
def test_other_encodings_are_resumed_at_an_index(tmp_path: Path, encoding: str) -> None:
    """If the encoding has no byte positions, the cursor is the index alone, and earlier rows are skipped."""
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n3,4\n", encoding=encoding, newline="")
    assert cursors(path, encoding=encoding) == [0, 1]
    assert rows(path, 0, encoding=encoding) == [{"a": "3", "b": "4"}]


def test_cursors_go_with_both_kinds_of_source(path: Path) -> None:
    """A job may go on with an open file where it had a path, and the reverse, and start at an index by hand."""
    with path.open(newline="") as file:
        assert cursors(file) == [0, 1]
        for cursor in (0, (0, 16)):
            assert rows(file, cursor) == rows(path, cursor) == [{"id": "2", "price": "20"}]
    assert [cursor[:2] for cursor in cursors(path)] == [(0, 16), (1, 22)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"id": "1", "price": "10"}),
        ({"header": False}, ["id", "price"]),
        ({"header": ["a", "b"]}, {"a": "id", "b": "price"}),
        ({"header": ("a", "b"), "quoting": csv.QUOTE_ALL}, {"a": "id", "b": "price"}),
        ({"header": False, "dialect": "excel-tab"}, ["id,price"]),
        ({"header": False, "delimiter": "i"}, ["", "d,pr", "ce"]),
        ({"header": False, "dialect": csv.excel(), "quotechar": "'"}, ["id", "price"]),
    ],
)
def test_rows_are_what_the_header_and_the_dialect_make_them(path: Path, options: Any, expected: Any) -> None:
    """Dicts by the first row or by given names, lists without; dialects and options are those of csv.reader."""
    assert rows(path, **options)[0] == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "UTF_8_SIG"])
@pytest.mark.parametrize("first", ["id", '"i\nd"', "\nid"])
def test_a_byte_order_mark_is_dropped(tmp_path: Path, encoding: str, first: str) -> None:
    """Each name of UTF-8 drops the mark, from a path or an open file, before a quoted field or a blank line."""
    path = tmp_path / "x.csv"
    path.write_text(f"{first},b\n1,2\n3,4\n", encoding="utf-8-sig")
    name = first.strip('"\n')
    expected = [{name: "1", "b": "2"}, {name: "3", "b": "4"}]
    assert (
        rows(path, encoding=encoding)
        == rows(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
        == expected
    )
    assert csv_rows(path, cursor=None, encoding=encoding).size == 2
    assert rows(path, cursors(path, encoding=encoding)[0]) == expected[1:]


@pytest.mark.parametrize(
    ("line", "fields", "row"),
    [("5", 1, {"id": "5", "price": None}), ("5,6,7,8", 4, {"id": "5", "price": "6", None: ["7", "8"]})],
)
def test_a_ragged_row_is_an_error_unless_asked_for(path: Path, line: str, fields: int, row: Any) -> None:
    """Its values would stand under wrong names; the error names the line, also of a job that was resumed."""
    with path.open("a", newline="") as file:
        file.write(f'"4\n",40\n{line}\n')
    message = rf"prices\.csv, line 6: got {fields} fields, but the header has 2; .* ragged=True"
    for cursor in (None, 1, (1, 22)):
        with pytest.raises(csv.Error, match=message):
            rows(path, cursor)
    with path.open(newline="") as file, pytest.raises(csv.Error, match=message):
        rows(file)
    assert rows(path, ragged=True)[-1] == row
    assert rows(path, header=False)[-1] == line.split(",")
    with pytest.raises(csv.Error, match=message):
        list(csv_batches(path, cursor=None))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (
            b"a,b,a\n1,2,3\n",
            {},
            r"line 1: the header has duplicate names, .* header=False, or give the names",
        ),
        (b'a,b\n1,2\n"1"x,2\n', {"strict": True}, "line 3: ',' expected after '\"'"),
        (b"a,b\n\xe4,2\n", {}, r"after line 0: 'utf-8' codec can't decode byte 0xe4 .*; give its encoding="),
        (b'a,b\n1,2\n3,"4\n', {"strict": True}, "line 3: unexpected end of data"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_the_line(
    path: Path, data: bytes, options: Any, message: str
) -> None:
    """A bad header, row or encoding raises an error that names the line; the size is unknown and raises nothing."""
    path.write_bytes(data)
    with pytest.raises(csv.Error, match=r"prices\.csv, " + message):
        rows(path, **options)
    assert csv_rows(path, cursor=None, **options).size in {None, 1}


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        (7, {}, TypeError, r"csv_rows\(\) takes a path or an open text file; got int"),
        (io.BytesIO(b"a\n"), {}, TypeError, "got BytesIO"),
        (["a"], {}, TypeError, "got list"),
        ("x", {"header": "abc"}, TypeError, "takes True, False or a list of names as header; got 'abc'"),
        ("x", {"header": ["a", 1]}, TypeError, "got"),
        ("x", {"header": ["a", "a"]}, TypeError, "has duplicate names"),
        ("x", {"dialect": "excess"}, csv.Error, "unknown dialect"),
        ("x", {"delimeter": ";"}, TypeError, "delimeter"),
        ("x", {"encoding": "utf-9"}, LookupError, "utf-9"),
        (
            "x",
            {"cursor": -1},
            CursorError,
            r"resumes from None, the index of a row, or \(index, byte, check\); got -1",
        ),
        ("x", {"cursor": (1, 2, 3, 4)}, CursorError, "got"),
        ("x", {"cursor": (1, "2")}, CursorError, "got"),
        ("x", {"cursor": True}, CursorError, "got True"),
        (io.TextIOWrapper(OneWay(b"")), {"guard": True}, TypeError, "cannot seek; give the path"),
    ],
)
def test_mistakes_are_refused_at_once(
    source: Any, options: Any, error: type[Exception], message: str
) -> None:
    """A mistake is refused before a file is opened, with what was found and what is allowed."""
    with pytest.raises(error, match=message):
        csv_rows(source, **{"cursor": None, **options})


def test_batches_need_a_size() -> None:
    """A batch has one row or more."""
    for size in (0, True, "7"):
        with pytest.raises(TypeError, match="takes a batch_size of 1 or more"):
            csv_batches("x", cursor=None, batch_size=size)  # type: ignore[arg-type]


def test_the_batch_size_may_change(path: Path) -> None:
    """The cursor of a batch is that of its last row."""
    ((first, cursor),) = list(csv_batches(path, cursor=None, batch_size=1))[:1]
    assert (first, cursor[:2]) == ([{"id": "1", "price": "10"}], (0, 16))
    ((second, last),) = csv_batches(path, cursor=cursor, batch_size=9)
    assert (second, last[:2]) == ([{"id": "2", "price": "20"}], (1, 22))
    assert rows(path, cursor) == [{"id": "2", "price": "20"}]


def test_a_file_that_no_longer_fits_the_cursor_is_refused(path: Path) -> None:
    """Even without a guard, a cursor in the middle of a row or after the end of the file is refused."""
    for cursor in ((0, 12), (9, 99), 2):
        with pytest.raises(
            CollectionChanged, match=r"prices\.csv has changed since the job started: .* start the job"
        ):
            rows(path, cursor)


@pytest.mark.parametrize("end", ["", "\n"])
def test_rows_that_are_appended_are_read(tmp_path: Path, end: str) -> None:
    """A job that was interrupted goes on with what was added to its file, also where the last row had no newline."""
    path = tmp_path / "x.csv"
    path.write_text(f"a\n1{end}")
    cursor = cursors(path)[-1]
    assert rows(path, cursor) == []
    with path.open("a") as file:
        file.write("2\n" if end else "\n2\n")
    assert rows(path, cursor) == [{"a": "2"}]


def test_an_open_file_is_read_from_its_beginning(path: Path) -> None:
    """The file is read from its beginning and stays open; its rows are counted only before it is read."""
    with path.open(newline="") as file:
        file.readline()
        enumerator = csv_rows(file, cursor=None)
        assert enumerator.size == 2
        assert [row["id"] for row, _ in enumerator] == ["1", "2"]
        late = csv_rows(file, cursor=None)
        pairs = iter(late)
        next(pairs)
        assert late.size is None
        assert next(pairs)[0]["id"] == "2"
        assert not file.closed


def test_a_pipe_is_read_from_where_it_stands() -> None:
    """A source that cannot seek has no size; a resume skips its rows as they are read."""
    assert csv_rows(io.TextIOWrapper(OneWay(b"a\n1\n")), cursor=None).size is None
    pipe = io.TextIOWrapper(OneWay(b"x,y\na\n1\n2\n"), newline="")
    pipe.readline()
    assert rows(pipe, 0) == [{"a": "2"}]


class Reader(IterationJob):
    """Reads a file, and fails at each row if *fail* is true."""

    def build_enumerator(self, path: str, fail: bool, *, cursor: Any) -> Any:
        """Read it."""
        return csv_rows(path, cursor=cursor)

    def each_iteration(self, row: Any, path: str, fail: bool) -> None:
        """Do nothing, or fail."""
        if fail:
            raise RuntimeError("cannot")


@pytest.mark.parametrize("way", ["complete", "interrupted", "failed", "ragged"])
def test_a_file_is_closed_however_the_job_ends(path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A file is closed when the job ends, not when the garbage collector runs."""
    opened: list[io.TextIOWrapper] = []
    real = Path.open

    def opening(self: Path, *args: Any, **options: Any) -> Any:
        opened.append(file := real(self, *args, **options))
        return file

    monkeypatch.setattr(Path, "open", opening)
    if way == "ragged":
        path.write_text("a,b\n1\n")
    if way == "interrupted":
        assert len(InlineRun(Reader, str(path), False, stops=[Every(1)]).drain()) == 3
    elif way == "complete":
        run(Reader, str(path), False)
    else:
        with pytest.raises((RuntimeError, csv.Error)):
            run(Reader, str(path), way == "failed")
    assert opened
    assert all(file.closed for file in opened)


TABLE = "id,price,note\n1,10,a\n2,20,b\n3,30,c\n4,40,d\n5,50,e\n"
CHANGED = {
    "a row before the cursor is gone": TABLE.replace("1,10,a\n", ""),
    "the row at the cursor is gone": TABLE.replace("3,30,c\n", ""),
    "a row came before the cursor": TABLE.replace("2,20", "9,90,z\n2,20"),
    "the row at the cursor is another one": TABLE.replace("3,30,c", "3,31,c"),
    "columns are renamed": TABLE.replace("price", "cents"),
    "columns are swapped": "price,id,note\n10,1,a\n20,2,b\n30,3,c\n40,4,d\n50,5,e\n",
    "the names of columns are swapped": TABLE.replace("id,price", "price,id"),
    "rows are sorted otherwise": "id,price,note\n5,50,e\n4,40,d\n2,20,b\n3,30,c\n1,10,a\n",
}
FITS = {
    "nothing": TABLE,
    "a row came at the end": TABLE + "6,60,f\n",
    "a row after the cursor is gone": TABLE.replace("4,40,d\n", ""),
}


@pytest.mark.parametrize("text", [*CHANGED.values(), *FITS.values()], ids=[*CHANGED, *FITS])
@pytest.mark.parametrize("kind", ["path", "open", "utf-16"])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_file_that_changed_before_the_cursor_stops_the_job(
    tmp_path: Path, done: list[Any], text: str, kind: str, batch_size: int | None
) -> None:
    """A job that resumes after the third row notices a change before it by default, and keeps its progress."""
    path = tmp_path / "x.csv"
    encoding = "utf-16" if kind == "utf-16" else "utf-8"

    def source() -> Any:
        return io.StringIO(path.read_text(encoding)) if kind == "open" else path

    class Read(IterationJob):
        def build_enumerator(self, *, cursor: Any) -> Any:
            if batch_size is None:
                return csv_rows(source(), cursor=cursor, encoding=encoding)
            return csv_batches(source(), cursor=cursor, batch_size=batch_size, encoding=encoding)

        def each_iteration(self, item: Any) -> None:
            done.extend(item if isinstance(item, list) else [item])

    path.write_text(TABLE, encoding)
    inline = InlineRun(Read, stops=[Count(3)])
    assert inline.execute().outcome == "interrupted"
    path.write_text(text, encoding)
    if text in FITS.values():
        assert inline.drain()[-1].outcome == "completed"
        assert [row["id"] for row in done] == [line[0] for line in text.splitlines()[1:]]
        return
    with pytest.raises(CollectionChanged):
        inline.drain()
    path.write_text(TABLE, encoding)
    assert inline.drain()[-1].outcome == "completed"
    assert [row["id"] for row in done] == list("12345")


def test_cursors_without_a_check_are_still_read(path: Path) -> None:
    """A job that began with release 0.1 goes on at the byte in its cursor."""
    assert rows(path, (0, 16)) == [{"id": "2", "price": "20"}]
