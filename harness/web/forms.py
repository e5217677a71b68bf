"""Form that enqueues a job: built from the signature of the job, and read with its types."""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from harness.errors import UsageError
from harness.iteration import IterationJob
from harness.job import Job

ID = re.compile("[A-Za-z0-9_-]*")
"""Ids that RQ allows, and the empty one, with which RQ chooses."""

PREFIX = "arg-"
"""Prefix of the names of fields that are arguments."""


@dataclass(frozen=True)
class Field:
    """Field of the form.

    :ivar label: name of the argument. :ivar kind: text for the expected type. :ivar input: type of the input.
        :ivar choices: texts to choose from; empty if it is typed. :ivar default: default, shown if it is
        empty.
    :ivar required: whether it must be filled in. :ivar value: as typed before. :ivar error: what is wrong with it.
    """

    name: str
    label: str
    kind: str
    input: str
    choices: tuple[str, ...]
    default: str
    required: bool
    value: str = ""
    error: str = ""


class BadForm(UsageError):
    """Invalid form.

    :ivar fields: its fields, with the typed values and their errors.
    """

    def __init__(self, text: str, fields: Sequence[Field] = ()) -> None:
        super().__init__(text)
        self.fields = tuple(fields)


def _bool(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(text)
    return text == "true"


def _int(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,40}", text):
        raise ValueError(text)
    return int(text)


def _json(text: str) -> Any:
    """Return JSON data, or the text if it is not JSON, so that a text needs no quotes."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _strict_json(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = json.loads(text)
        if not isinstance(value, kind):
            raise TypeError(text)
        return value

    return read


@dataclass(frozen=True)
class _Kind:
    words: str
    read: Callable[[str], Any]
    input: str = "text"
    choices: tuple[str, ...] = field(default=())


_KINDS: Mapping[Any, _Kind] = {
    int: _Kind("a whole number", _int, "number"),
    float: _Kind("a number", float),
    bool: _Kind("yes or no", _bool, choices=("true", "false")),
    str: _Kind("text", str),
    date: _Kind("a date", date.fromisoformat, "date"),
    datetime: _Kind("a time, such as 2031-05-01T12:00:00+00:00", datetime.fromisoformat),
    Decimal: _Kind("a decimal number", Decimal),
    UUID: _Kind("a UUID", UUID),
    list: _Kind("a JSON list", _strict_json(list)),
    dict: _Kind("a JSON object", _strict_json(dict)),
}
_ANY = _Kind("JSON, or else text", _json)


def fields_of(job_class: type[Job], typed: Mapping[str, str] | None = None) -> list[Field]:
    """Return the fields for the arguments of a job.

    :param typed: typed texts by field name, for a form that is shown again.
    """
    return [_field(parameter, hint, typed or {}) for parameter, hint in _parameters(job_class)]


def arguments_of(job_class: type[Job], typed: Mapping[str, str]) -> tuple[list[Any], dict[str, Any]]:
    """Return the typed arguments.

    An empty field has its default. An argument after an empty one is passed by name.

    :raises BadForm: with the fields and their errors.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    gap = False
    for parameter, hint in _parameters(job_class):
        text = typed.get(PREFIX + parameter.name, "").strip()
        kind, optional = _kind(hint)
        value: Any
        if not text and parameter.default is not parameter.empty:
            gap = True
            continue
        if not text and (optional or kind.words == "text"):
            value = None if optional else ""
        elif not text:
            wrong[parameter.name] = f"fill it in: {kind.words}"
            continue
        else:
            try:
                value = kind.read(text)
            except (ValueError, TypeError, InvalidOperation, RecursionError):
                wrong[parameter.name] = f"got {text[:80]!r}; use {kind.words}"
                continue
        if parameter.kind is parameter.KEYWORD_ONLY or gap:
            kwargs[parameter.name] = value
        else:
            args.append(value)
    if wrong:
        shown = [
            Field(**{**vars(each), "error": wrong.get(each.label, "")})
            for each in fields_of(job_class, typed)
        ]
        text = "; ".join(f"{name}: {words}" for name, words in wrong.items())
        raise BadForm(text, shown)
    return args, kwargs


def _parameters(job_class: type[Job]) -> list[tuple[inspect.Parameter, Any]]:
    """Return the parameters of the enqueue, with their annotations."""
    iterates = issubclass(job_class, IterationJob)
    function = getattr(job_class, "build_enumerator" if iterates else "perform", None)
    if function is None:
        return []
    try:
        hints = get_type_hints(function)
    except Exception:  # noqa: BLE001 - a name that only a type checker can resolve; then all types are accepted
        hints = {}
    parameters = list(inspect.signature(function).parameters.values())[1:]  # without self
    return [
        (each, hints.get(each.name, Any))
        for each in parameters
        if each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}
        and not (iterates and each.name == "cursor")
    ]


def _kind(hint: Any) -> tuple[_Kind, bool]:
    """Return the reader of an argument, and whether it may be None."""
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        others = [each for each in get_args(hint) if each is not type(None)]
        optional = len(others) < len(get_args(hint))
        return (_kind(others[0])[0] if len(others) == 1 else _ANY), optional
    if origin is Literal:
        chosen = {str(each): each for each in get_args(hint)}
        return _Kind(f"one of {', '.join(chosen)}", _choose(chosen), choices=tuple(chosen)), False
    if isinstance(hint, type) and issubclass(hint, Enum):
        members = dict(hint.__members__)
        return _Kind(f"one of {', '.join(members)}", _choose(members), choices=tuple(members)), False
    return _KINDS.get(origin or hint, _ANY), hint is None


def _choose(values: Mapping[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if text not in values:
            raise ValueError(text)
        return values[text]

    return read


def _field(parameter: inspect.Parameter, hint: Any, typed: Mapping[str, str]) -> Field:
    kind, optional = _kind(hint)
    has_default = parameter.default is not parameter.empty
    default = repr(parameter.default)[:80] if has_default else "None" if optional else ""
    name = PREFIX + parameter.name
    return Field(
        name=name, label=parameter.name, kind=kind.words, input=kind.input, choices=kind.choices, default=default,
        required=not has_default and not optional and kind.words != "text", value=typed.get(name, ""),
    )  # fmt: skip
