"""Cursors: values that JSON restores with the same value and type.

JSON's own values are stored unchanged, so numbers and strings are readable in a dashboard. Other types are
stored as an object with one key that starts with ``$``::

    (3, "b")                     {"$tuple": [3, "b"]}
    date(2026, 3, 1)             {"$date": "2026-03-01"}
    datetime(…, tzinfo=…)        {"$datetime": ["2026-03-01T08:00:00+01:00", "Europe/Berlin", 0]}
    Decimal("0.10")              {"$decimal": "0.10"}
    UUID("6ba7…")                {"$uuid": "6ba7…"}
    b"\\x00"                      {"$bytes": "AA=="}
    Position(3) (a dataclass)    {"$dataclass": ["shop.jobs:Position", {"row": 3}]}
    Phase.LOAD (an Enum)         {"$enum": ["shop.jobs:Phase", "LOAD"]}
    {"$tuple": 1}                {"$dict": {"$tuple": 1}}

Any other value is refused when it is set, not when it is read. The package never looks up a class by a stored
name: dataclasses and enums have to be registered with :func:`cursor_type`.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import singledispatch
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from harness.boundary.decoding import is_deeper, shown
from harness.boundary.texts import bounded, error_text
from harness.errors import CorruptProgress, CursorError, JobDefinitionError, UnadvanceableCursor

ATOMIC = frozenset({int, str, bool, type(None), date, UUID, bytes})
"""Types whose values are immutable and always restored equal; they need no check and no copy."""

IMMUTABLE = ATOMIC | {float, datetime, Decimal}
"""Types with immutable values, not all of which are allowed."""

_ALLOWED = (
    "None, bool, int, finite float, str, list, dict with str keys, tuple, date, datetime, Decimal, UUID, bytes, "
    "and dataclasses and enums registered with @cursor_type"
)

DEPTH = 120
"""Depth limit of nested lists and objects in a cursor; the record has a larger limit."""

SHOWN_ERROR = 200
"""Size limit, in bytes, of the error text about a cursor that cannot be read."""

_DIGITS = 4_300
_LONG = 10**_DIGITS
"""Maximum digits of an int that Python converts to text, and the smallest int with more digits."""

C = TypeVar("C", bound=type)
_registered: dict[str, type] = {}


def cursor_type(cls: C) -> C:
    """Register a dataclass or an enum as a cursor type (class decorator).

    It is stored under ``module:qualname``, with its fields or the name of its member. These names must stay
    valid while jobs are in the queue.
    """
    if not (isinstance(cls, type) and (dataclasses.is_dataclass(cls) or issubclass(cls, Enum))):
        raise JobDefinitionError(
            f"@cursor_type takes a dataclass or an Enum; got {cls!r}; add @dataclass below it"
        )
    if not issubclass(cls, Enum):
        left_out = [field.name for field in dataclasses.fields(cls) if not field.init]
        if left_out:
            raise JobDefinitionError(
                f"@cursor_type got {cls.__qualname__}, whose constructor does not take {', '.join(left_out)}; "
                "remove init=False, or make it a property"
            )
    _registered[_name_of(cls)] = cls
    return cls


@contextmanager
def types_standing_in(module: str, old: str) -> Iterator[None]:
    """Replace one module's cursor types by another's while the context is open, as a deploy would.

    A type without a counterpart keeps its name.

    :param module: module whose types are stored and read under the name of the module *old*.
    """
    replacements = {
        name: cls for name, cls in _registered.items() if cls.__module__ == module and module != old
    }
    before = dict(_registered)
    for cls in replacements.values():
        cls.__module__ = old
        _registered[_name_of(cls)] = cls
    try:
        yield
    finally:
        for cls in replacements.values():
            cls.__module__ = module
        _registered.clear()
        _registered.update(before)


def encode(value: Any, name: str = "cursor") -> Any:
    """Return *value* as plain JSON data.

    :param name: name of the value in errors.
    :raises CursorError: naming the place inside the value, as in ``cursor[2]['when']: …``.
    """
    try:
        data = _encode(value, name)
    except RecursionError:  # not chained: its traceback has a thousand lines
        data = ...
    if data is ... or (isinstance(data, list | dict) and is_deeper(data, DEPTH)):
        raise CursorError(
            f"{name} is nested more than {DEPTH} levels deep; a cursor is a position: keep large data in the database "
            "and its key in the cursor"
        )
    return data


def _encode(value: Any, name: str) -> Any:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        if not -_LONG < value < _LONG:
            raise CursorError(f"{name}: got an int of too many digits; the limit is {_DIGITS:,}")
        return value
    encoder = _ENCODERS.get(kind)
    if encoder is not None:
        return encoder(value, name)
    if _registered.get(_name_of(kind)) is kind:
        if isinstance(value, Enum):
            return {"$enum": [_name_of(kind), value.name]}
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"$dataclass": [_name_of(kind), _encode_dict(fields, name)]}
    registrable = dataclasses.is_dataclass(value) or isinstance(value, Enum)
    hint = "; decorate the class with @cursor_type" if registrable else ""
    raise CursorError(
        f"{name}: {kind.__module__}.{kind.__qualname__} would not come back equal from JSON; use "
        f"{_ALLOWED}{hint}"
    )


def decode(data: Any) -> Any:
    """Return the value that :func:`encode` encoded as *data*.

    :raises CorruptProgress: if :func:`encode` never writes such *data*.
    """
    try:
        return _decode(data)
    except RecursionError:
        raise CorruptProgress("stored cursor is nested too deep") from None


def _decode(data: Any) -> Any:
    if isinstance(data, list):
        return [_decode(element) for element in data]
    if not isinstance(data, dict):
        if type(data) is float and not math.isfinite(data):
            raise CorruptProgress(f"stored cursor has {data!r}; numbers must be finite")
        return data
    tag = next(iter(data), "")
    if not (len(data) == 1 and isinstance(tag, str) and tag.startswith("$")):
        return {key: _decode(element) for key, element in data.items()}
    if tag not in _DECODERS:
        raise CorruptProgress(
            f"stored cursor has the unknown type {shown(tag)}; the types are {sorted(_DECODERS)}"
        )
    kind, decoder = _DECODERS[tag]
    if not isinstance(data[tag], kind):
        raise CorruptProgress(f"stored cursor {shown(data)} cannot be read: {tag} takes {kind.__name__}")
    try:
        return decoder(data[tag])
    except (CorruptProgress, RecursionError):
        raise
    except Exception as error:  # OSError of a time zone, and what a registered class raises
        why = bounded(error_text(error), SHOWN_ERROR)
        raise CorruptProgress(f"stored cursor {shown(data)} cannot be read: {why}") from error


def freeze(value: Any) -> Any:
    """Return *value*, or a copy of it if it is mutable.

    :raises CursorError: as :func:`encode`, so that a cursor is refused where it is set.
    """
    kind = type(value)
    # A key of several columns, or a row and its place in a file: a tenth of the time of a copy.
    if kind in ATOMIC or (kind is tuple and _atomic(value)):
        return value
    data = encode(value)
    return value if kind in IMMUTABLE else decode(data)


def _atomic(value: tuple[Any, ...]) -> bool:
    return ATOMIC.issuperset(map(type, value)) or all(
        type(each) in ATOMIC or (type(each) is tuple and _atomic(each)) for each in value
    )


def _name_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _encode_float(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise CursorError(f"{name}: {value!r} has no JSON form; use finite floats")
    return value


def _encode_list(value: list[Any], name: str) -> list[Any]:
    return [_encode(element, f"{name}[{index}]") for index, element in enumerate(value)]


def _encode_dict(value: dict[Any, Any], name: str) -> dict[str, Any]:
    for key in value:
        if type(key) is not str:
            raise CursorError(f"{name}: the key {key!r} would come back as a str; use str keys")
    encoded = {key: _encode(element, f"{name}[{key!r}]") for key, element in value.items()}
    if len(encoded) == 1 and next(iter(encoded)).startswith("$"):
        return {"$dict": encoded}
    return encoded


def _encode_datetime(value: datetime, name: str) -> dict[str, Any]:
    zone = value.tzinfo
    if not (zone is None or type(zone) is timezone or (isinstance(zone, ZoneInfo) and zone.key)):
        raise CursorError(
            f"{name}: the time zone {zone!r} would not come back equal; use no time zone, datetime.timezone "
            "or a ZoneInfo with a key"
        )
    key = zone.key if isinstance(zone, ZoneInfo) else None
    return {"$datetime": [value.isoformat(), key, value.fold]}


def _decode_datetime(data: list[Any]) -> datetime:
    text, key, fold = data
    if (type(text), type(fold)) != (str, int) or not (key is None or type(key) is str):
        raise ValueError("$datetime takes a time, the key of a time zone or null, and 0 or 1")
    value = datetime.fromisoformat(text)
    if key is not None:
        value = value.replace(tzinfo=ZoneInfo(key))
    # utcoffset() of a time zone's fixed offset may be refused only when it is asked.
    value.utcoffset()
    return value.replace(fold=fold)


def _encode_decimal(value: Decimal, name: str) -> dict[str, Any]:
    if value.is_nan():
        raise CursorError(f"{name}: {value!r} is not equal to itself; use numbers")
    return {"$decimal": str(value)}


def _decode_decimal(data: str) -> Decimal:
    value = Decimal(data)
    if value.is_nan():
        raise ValueError("it is not a number")
    return value


def _decode_dict(data: dict[str, Any]) -> dict[str, Any]:
    return {key: _decode(element) for key, element in data.items()}


def _decode_dataclass(data: list[Any]) -> Any:
    name, fields = data
    fields = fields.get("$dict", fields) if len(fields) == 1 else fields
    return _class_named(name, enum=False)(**_decode_dict(fields))


def _decode_enum(data: list[str]) -> Any:
    name, member = data
    return _class_named(name, enum=True)[member]  # type: ignore[index]  # only enums are stored as $enum


def _class_named(name: str, *, enum: bool) -> type:
    if name not in _registered or issubclass(_registered[name], Enum) != enum:
        raise CorruptProgress(
            f"stored cursor is a {shown(name)}, which is not registered; decorate it with @cursor_type "
            "and import its module before the job runs"
        )
    return _registered[name]


_ENCODERS: dict[type, Callable[[Any, str], Any]] = {
    float: _encode_float,
    list: _encode_list,
    dict: _encode_dict,
    tuple: lambda value, name: {"$tuple": _encode_list(list(value), name)},
    date: lambda value, _: {"$date": value.isoformat()},
    datetime: _encode_datetime,
    Decimal: _encode_decimal,
    UUID: lambda value, _: {"$uuid": str(value)},
    bytes: lambda value, _: {"$bytes": base64.b64encode(value).decode("ascii")},
}
_DECODERS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "$tuple": (list, lambda data: tuple(_decode(element) for element in data)),
    "$date": (str, date.fromisoformat),
    "$datetime": (list, _decode_datetime),
    "$decimal": (str, _decode_decimal),
    "$uuid": (str, UUID),
    "$bytes": (str, lambda data: base64.b64decode(data, validate=True)),
    "$dataclass": (list, _decode_dataclass),
    "$enum": (list, _decode_enum),
    "$dict": (dict, _decode_dict),
}
"""Types of what is stored under each tag, and the functions that read it."""


@singledispatch
def successor(value: Any) -> Any:
    """Return the value that follows *value*, for ``step.advance()``.

    int: plus one; str: as Ruby's ``succ`` for ASCII letters and digits (``"az"`` → ``"ba"``, ``"Zz9"`` →
    ``"AAa0"``); date: the next day; UUID: the next number; Enum: the next member. Further types are added with
    ``successor.register``.

    :raises UnadvanceableCursor: for float, None, bool, datetime, the last member of an Enum and all other
        values without a unique next value.
    """
    raise UnadvanceableCursor(
        f"a cursor of type {type(value).__name__} has no next value (found {value!r}); start the step at an "
        "int, str, date, UUID or Enum member, call step.set(…) instead, or add the type with "
        "successor.register"
    )


@successor.register
def _(value: int) -> int:
    if isinstance(value, bool):
        raise UnadvanceableCursor(
            f"a cursor of type bool has no next value (found {value!r}); use step.set(…)"
        )
    return value + 1


@successor.register
def _(value: date) -> date:
    if isinstance(value, datetime):
        raise UnadvanceableCursor(
            f"a cursor of type datetime has no next value (found {value!r}); use step.set(…) or a date"
        )
    return value + timedelta(days=1)


@successor.register
def _(value: UUID) -> UUID:
    return UUID(int=value.int + 1)


@successor.register
def _(value: Enum) -> Enum:
    members = list(type(value))
    following = members.index(value) + 1
    if following == len(members):
        raise UnadvanceableCursor(f"{value!r} is the last member of {type(value).__name__}; use step.set(…)")
    return members[following]


@successor.register
def _(value: str) -> str:
    """Count up the ASCII letters and digits from the right, carrying, each in its own kind."""
    if not re.search("[0-9A-Za-z]", value):
        raise UnadvanceableCursor(
            f"a str without an ASCII letter or digit has no next value (found {value!r}); use step.set(…)"
        )
    characters = list(value)
    places = [index for index, character in enumerate(value) if re.match("[0-9A-Za-z]", character)]
    for place in reversed(places):
        character = characters[place]
        if character not in "9zZ":
            characters[place] = chr(ord(character) + 1)
            return "".join(characters)
        characters[place] = {"9": "0", "z": "a", "Z": "A"}[character]
    characters.insert(places[0], {"0": "1", "a": "a", "A": "A"}[characters[places[0]]])
    return "".join(characters)
