"""The boundary for stored data: JSON text -> data within limits -> typed values.

Redis, databases and files are written by other releases, other programs and people. This module checks
everything that the package reads from them. So a bad record raises an error of this package, and never a
``RecursionError``, a NaN or an object of another type deep inside the caller. Two steps:

* :func:`parse` turns text into JSON data. It limits size and depth, and refuses NaN and infinity.
* :func:`read` turns JSON data into a frozen dataclass; its annotations say what is allowed.

Cursors have a third step, :func:`harness.cursor.decode`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from collections.abc import Callable, Mapping
from functools import cache
from types import UnionType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from harness.errors import CorruptProgress, HarnessError, UsageError

RECORD_BYTES = 1024 * 1024
"""Size limit of a stored record in bytes; records of this package are far smaller."""

FILE_BYTES = 256 * 1024 * 1024
"""Size limit of a file of records in bytes."""

DEPTH = 150
"""Limit of nested lists and objects in stored data."""

SHOWN = 120
"""Characters of a stored value that an error message shows."""

MAX_INT = 2**63 - 1
"""Largest count or time; cursors may be larger."""


def parse_json(
    text: Any,
    what: str,
    *,
    limit: int = RECORD_BYTES,
    depth: int = DEPTH,
    error: type[HarnessError] = CorruptProgress,
) -> Any:
    """Return the JSON data in a stored text.

    :param text: str or bytes; anything else is refused.
    :param what: name of the record, for the error.
    :param error: class of the error.
    :raises HarnessError: *error*, for a text that is too large, too deep, not UTF-8, or not JSON.
    """
    if not isinstance(text, str | bytes):
        raise error(f"{what} is {shown(text)}, not text; it was not changed")
    if len(text) > limit:
        raise error(f"{what} has {len(text):,} bytes; at most {limit:,} are read; it was not changed")
    try:
        data = json.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError) as cause:
        raise error(f"{what} is not JSON ({cause}); it was not changed") from cause
    check(data, what, depth=depth, error=error)
    return data


def check(data: Any, what: str, *, depth: int = DEPTH, error: type[HarnessError] = CorruptProgress) -> None:
    """Refuse JSON data that is too deep or has numbers that are not finite.

    :raises HarnessError: *error*.
    """
    if is_deeper(data, depth):
        raise error(f"{what} is nested more than {depth} levels deep; it was not changed")
    level = [data]
    while level:
        if any(type(each) is float and not math.isfinite(each) for each in level):
            raise error(f"{what} has a number that is not finite; it was not changed")
        level = [inner for each in level for inner in _inner(each)]


def is_deeper(data: Any, depth: int) -> bool:
    """Return whether JSON data has more than *depth* levels of lists and objects."""
    level = [data] if isinstance(data, dict | list | tuple) else []
    for _ in range(depth):
        level = [
            each
            for outer in level
            for each in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(each, dict | list | tuple)
        ]
        if not level:
            return False
    return True


def plain_text(raw: Any, what: str) -> str | None:
    """Return a value from Redis as text, or None.

    :raises CorruptProgress: if it is not UTF-8.
    """
    if raw is None or isinstance(raw, str):
        return raw
    try:
        return str(raw, "utf-8")
    except (UnicodeDecodeError, TypeError) as cause:
        raise CorruptProgress(f"{what} is not UTF-8 text ({cause}); it was not changed") from cause


def read(kind: Any, found: object, where: str, *, error: type[HarnessError] = UsageError) -> Any:
    """Return *found* as a *kind*: a dataclass, or a type that annotates a dataclass field in this package.

    Numbers are finite and 0 or more. Unknown fields are left out.

    :param where: path of the value, such as ``runs[3].items``; empty at the top.
    :raises HarnessError: *error*, naming the field, what was found and what is allowed.
    """
    return _reader(kind)(found, where, error)


def shown(value: object) -> str:
    """Return a stored value for an error message, cut to a line."""
    text = reprlib.repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def malformed(where: str, found: object, allowed: str, *, error: type[HarnessError] = UsageError) -> NoReturn:
    """Raise an error of one line about the value at *where*."""
    raise error(f"{where or 'comparison'}: got {shown(found)}; use {allowed}")


def _inner(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


_Place = Any
"""Path of a value: a text, or a pair of the outer path and a name or an index. Only errors join it to a text."""

_Reader = Callable[[object, _Place, type[HarnessError]], Any]


def _path(place: _Place) -> str:
    """Join the parts of a path."""
    if isinstance(place, str):
        return place
    around, part = place
    before = _path(around)
    if type(part) is int:
        return f"{before}[{part}]"
    return f"{before}.{part}" if before and not part.startswith("[") else f"{before}{part}"


def _refuse(place: _Place, found: object, allowed: str, error: type[HarnessError]) -> NoReturn:
    malformed(_path(place), found, allowed, error=error)


@cache
def _reader(kind: Any) -> _Reader:
    """Return the function that reads a *kind*. Types are inspected once, because files hold millions of values."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is UnionType:
        inner = _reader(args[0])
        return lambda found, place, error: None if found is None else inner(found, place, error)
    if origin is Literal:
        return _literal_reader(args)
    if origin is list or (origin is tuple and args[-1] is Ellipsis):
        return _list_reader(origin, _reader(args[0]))
    if origin is tuple:
        return _row_reader(tuple(map(_reader, args)))
    if origin is Mapping:
        return _mapping_reader(_reader(args[1]))
    return _fields_reader(kind) if dataclasses.is_dataclass(kind) else _value_reader(kind)


def _literal_reader(args: tuple[Any, ...]) -> _Reader:
    allowed = "one of " + ", ".join(map(str, args))

    def read_literal(found: object, place: _Place, error: type[HarnessError]) -> Any:
        # Compared by type too: True is 1, and a list cannot be looked up.
        if any(type(found) is type(each) and found == each for each in args):
            return found
        _refuse(place, found, allowed, error)

    return read_literal


def _list_reader(origin: Any, each: _Reader) -> _Reader:
    def read_list(found: object, place: _Place, error: type[HarnessError]) -> Any:
        if not isinstance(found, list | tuple):
            _refuse(place, found, "a list", error)
        return origin([each(value, (place, index), error) for index, value in enumerate(found)])

    return read_list


def _row_reader(readers: tuple[_Reader, ...]) -> _Reader:
    indexed = tuple(enumerate(readers))

    def read_row(found: object, place: _Place, error: type[HarnessError]) -> Any:
        if not isinstance(found, list | tuple):
            _refuse(place, found, "a list", error)
        if len(found) != len(readers):
            _refuse(place, found, f"a list of {len(readers)}", error)
        return tuple([each(found[index], (place, index), error) for index, each in indexed])

    return read_row


def _mapping_reader(each: _Reader) -> _Reader:
    def read_mapping(found: object, place: _Place, error: type[HarnessError]) -> Any:
        if not isinstance(found, Mapping):
            _refuse(place, found, "an object", error)
        return {key: each(value, (place, f"[{key!r}]"), error) for key, value in found.items()}

    return read_mapping


def _fields_reader(kind: Any) -> _Reader:
    missing, hints = dataclasses.MISSING, get_type_hints(kind)
    # A dataclass may contain objects of its own class, so readers of fields are looked up when they are needed.
    fields = tuple(
        (each.name, hints[each.name], each.default is not missing or each.default_factory is not missing)
        for each in dataclasses.fields(kind)
    )

    def read_fields(found: object, place: _Place, error: type[HarnessError]) -> Any:
        if not isinstance(found, Mapping):
            _refuse(place, found, "an object", error)
        values = {}
        for name, hint, optional in fields:
            if name in found:
                values[name] = _reader(hint)(found[name], (place, name), error)
            elif not optional:
                raise error(f"{_path((place, name))}: this field is required, and is missing")
        return kind(**values)

    return read_fields


def _value_reader(kind: Any) -> _Reader:
    allowed = {float: "a number of 0 or more", int: "a whole number of 0 or more", bool: "true or false"}
    types = (float, int) if kind is float else (kind,)

    def read_value(found: Any, place: _Place, error: type[HarnessError]) -> Any:
        if kind is Any or (
            type(found) in types and (not isinstance(found, int | float) or 0 <= found <= MAX_INT)
        ):
            return found
        _refuse(place, found, allowed.get(kind, "text"), error)

    return read_value
