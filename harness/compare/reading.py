"""JSON -> frozen dataclasses: their annotations say what is allowed."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from harness.errors import UsageError


def read(kind: Any, found: object, where: str) -> Any:
    """Give *found* as a *kind*: a dataclass, or whatever one is annotated with in this package.

    :param where: the path of the value, such as ``runs[3].items``; empty at the top.
    :raises UsageError: naming the field, what was found and what is allowed.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if found is None else read(args[0], found, where)
    if origin is Literal:
        return found if found in args else malformed(where, found, "one of " + ", ".join(map(str, args)))
    if origin is tuple:
        return _read_list(args, found, where)
    if origin is Mapping:
        pairs = _an_object(found, where).items()
        return {key: read(args[1], value, f"{where}[{key!r}]") for key, value in pairs}
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, _an_object(found, where), where)
    return _read_value(kind, found, where)


def malformed(where: str, found: object, allowed: str) -> NoReturn:
    """Say in one line what is wrong with the value at *where*."""
    raise UsageError(f"{where or 'comparison'}: found {reprlib.repr(found)}, allowed: {allowed}")


def _an_object(found: object, where: str) -> Mapping[str, object]:
    return found if isinstance(found, Mapping) else malformed(where, found, "an object")


def _read_fields(kind: Any, found: Mapping[str, object], where: str) -> Any:
    values = {}
    optional = {field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}
    for name, hint in get_type_hints(kind).items():
        path = f"{where}.{name}" if where else name
        if name not in found:
            if name in optional:
                continue
            raise UsageError(f"{path}: found nothing, but this field is required")
        values[name] = read(hint, found[name], path)
    return kind(**values)


def _read_list(kinds: tuple[Any, ...], found: object, where: str) -> tuple[Any, ...]:
    if not isinstance(found, list | tuple):
        malformed(where, found, "a list")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(found)
    if len(found) != len(kinds):
        malformed(where, found, f"a list of {len(kinds)}")
    return tuple(
        read(kind, each, f"{where}[{index}]")
        for index, (kind, each) in enumerate(zip(kinds, found, strict=True))
    )


def _read_value(kind: Any, found: object, where: str) -> Any:
    if kind is Any:
        return found
    right_type = type(found) is kind or (kind is float and type(found) is int)
    if right_type and (not isinstance(found, int | float) or 0 <= found < math.inf):
        return found
    allowed = {float: "a number of 0 or more", int: "a whole number of 0 or more", bool: "true or false"}
    malformed(where, found, allowed.get(kind, "text"))
