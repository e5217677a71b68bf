"""The boundary for stored data: JSON text -> data within limits -> typed values.

Redis, databases and files are written by other releases, other programs and people. All that this package reads from
them passes here, so that a bad record is an error with a name of this package, and never a ``RecursionError``, a NaN
or an object of another type deep inside the caller. Two steps:

* :func:`parse` turns text into JSON data. It limits size and depth, and refuses NaN and infinity.
* :func:`read` turns JSON data into a frozen dataclass; its annotations say what is allowed.

Cursors have a third step, :func:`harness.cursor.decode`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from collections.abc import Mapping
from functools import lru_cache
from types import UnionType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from harness.errors import CorruptProgress, HarnessError, UsageError

RECORD_BYTES = 1024 * 1024
"""Size limit of a stored record in bytes; what this package writes is far smaller."""

FILE_BYTES = 256 * 1024 * 1024
"""Size limit of a file of records in bytes."""

DEPTH = 150
"""Limit of nested lists and objects in stored data."""

SHOWN = 120
"""Characters of a stored value that an error message shows."""

MAX_INT = 2**63 - 1
"""Largest count or time; cursors may be larger."""


def parse(
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
        raise error(f"{what} is {shown(text)}, not text; it was left as it is")
    if len(text) > limit:
        raise error(f"{what} has {len(text):,} bytes; at most {limit:,} are read; it was left as it is")
    try:
        data = json.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError) as cause:
        raise error(f"{what} is not JSON ({cause}); it was left as it is") from cause
    check(data, what, depth=depth, error=error)
    return data


def check(data: Any, what: str, *, depth: int = DEPTH, error: type[HarnessError] = CorruptProgress) -> None:
    """Refuse JSON data that is too deep or has numbers that are not finite.

    :raises HarnessError: *error*.
    """
    if is_deeper(data, depth):
        raise error(f"{what} is nested more than {depth} levels deep; it was left as it is")
    level = [data]
    while level:
        if any(type(each) is float and not math.isfinite(each) for each in level):
            raise error(f"{what} has a number that is not finite; it was left as it is")
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
    """Return what Redis holds under a key as text, or None.

    :raises CorruptProgress: if it is not UTF-8.
    """
    if raw is None or isinstance(raw, str):
        return raw
    try:
        return str(raw, "utf-8")
    except (UnicodeDecodeError, TypeError) as cause:
        raise CorruptProgress(f"{what} is not UTF-8 text ({cause}); it was left as it is") from cause


def read(kind: Any, found: object, where: str, *, error: type[HarnessError] = UsageError) -> Any:
    """Return *found* as a *kind*: a dataclass, or a type that its fields are annotated with in this package.

    Numbers are finite and 0 or more. Unknown fields are left out.

    :param where: path of the value, such as ``runs[3].items``; empty at the top.
    :raises HarnessError: *error*, naming the field, what was found and what is allowed.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if found is None else read(args[0], found, where, error=error)
    if origin is Literal:
        # Compared by type too: True is 1, and a list cannot be looked up.
        if any(type(found) is type(each) and found == each for each in args):
            return found
        malformed(where, found, "one of " + ", ".join(map(str, args)), error=error)
    if origin is tuple or origin is list:
        return origin(_read_list(args if origin is tuple else (*args, ...), found, where, error))
    if origin is Mapping:
        pairs = _an_object(found, where, error).items()
        return {key: read(args[1], value, f"{where}[{key!r}]", error=error) for key, value in pairs}
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, _an_object(found, where, error), where, error)
    return _read_value(kind, found, where, error)


def shown(value: object) -> str:
    """Return a stored value for an error message, cut to a line."""
    text = reprlib.repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def malformed(where: str, found: object, allowed: str, *, error: type[HarnessError] = UsageError) -> NoReturn:
    """Raise an error that says in one line what is wrong with the value at *where*."""
    raise error(f"{where or 'comparison'}: got {shown(found)}; use {allowed}")


def _inner(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _an_object(found: object, where: str, error: type[HarnessError]) -> Mapping[str, object]:
    return found if isinstance(found, Mapping) else malformed(where, found, "an object", error=error)


@lru_cache
def _fields(kind: Any) -> tuple[tuple[str, Any, bool], ...]:
    """Return names, types and optionality of the fields of a dataclass."""
    missing = dataclasses.MISSING
    optional = {
        each.name
        for each in dataclasses.fields(kind)
        if each.default is not missing or each.default_factory is not missing
    }
    hints = get_type_hints(kind)
    return tuple((each.name, hints[each.name], each.name in optional) for each in dataclasses.fields(kind))


def _read_fields(kind: Any, found: Mapping[str, object], where: str, error: type[HarnessError]) -> Any:
    values = {}
    for name, hint, optional in _fields(kind):
        path = f"{where}.{name}" if where else name
        if name not in found:
            if optional:
                continue
            raise error(f"{path}: this field is required, and is missing")
        values[name] = read(hint, found[name], path, error=error)
    return kind(**values)


def _read_list(kinds: tuple[Any, ...], found: object, where: str, error: type[HarnessError]) -> list[Any]:
    if not isinstance(found, list | tuple):
        malformed(where, found, "a list", error=error)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(found)
    if len(found) != len(kinds):
        malformed(where, found, f"a list of {len(kinds)}", error=error)
    return [
        read(kind, each, f"{where}[{index}]", error=error)
        for index, (kind, each) in enumerate(zip(kinds, found, strict=True))
    ]


def _read_value(kind: Any, found: object, where: str, error: type[HarnessError]) -> Any:
    if kind is Any:
        return found
    right_type = type(found) is kind or (kind is float and type(found) is int)
    if right_type and (not isinstance(found, int | float) or 0 <= found <= MAX_INT):
        return found
    allowed = {float: "a number of 0 or more", int: "a whole number of 0 or more", bool: "true or false"}
    malformed(where, found, allowed.get(kind, "text"), error=error)
