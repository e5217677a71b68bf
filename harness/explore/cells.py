"""Cells: values in a form that can be compared, the time of the run, and texts without times and random ids."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any
from uuid import UUID

from harness.explore.moments import TIME, UNITS, meant, seconds, split

NOW = "time of the run"
"""Placeholder for a value that is the time of its write."""
ID = "random id"
SLACK = 1.5
"""Seconds by which a rounded time may be early or late."""
_DIGITS = 12
"""Number of digits of a float that are compared: sums in another order differ in the last digits."""
_LEAST, _MOST = 8, 40
"""Lengths of texts that can be a time."""

_TIMES = (
    (re.compile(r"\b1[5-9]\d{11}-\d+\b"), NOW),  # the id of an entry in a stream
    (TIME, NOW),
)
_BLURS = (
    _TIMES[0],
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), ID),
    (re.compile(r"\b(?=[0-9a-fA-F]*[0-9])(?=[0-9]*[a-fA-F])[0-9a-fA-F]{16,}\b"), ID),
    (re.compile(r"\btmp[a-z0-9_]{8}\b"), ID),
    (TIME, NOW),
    (re.compile(r"\b\d+\.\d{3,}\b"), "number"),
)
_HASHABLE = {str, int, bool, bytes, datetime, date, time_of_day}
_TOKENS = re.compile(r"(\W+)")

Part = str | frozenset[int]
"""Name of the compared part of a cell: see :func:`seen`."""


def plain(value: Any, *, is_json: bool = False) -> Any:
    """Return a value in a hashable form, in which values with the same meaning are equal."""
    kind = type(value)
    if kind is float:
        return float(f"{value:.{_DIGITS}g}") if value == value else "nan"  # noqa: PLR0124 - nan differs from itself
    if kind is str and is_json:
        return _json(value)
    if value is None or kind in _HASHABLE:
        return value
    if isinstance(value, memoryview | bytearray):
        return bytes(value)
    return _hashable(value)


def _json(text: str) -> str:
    try:
        return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
    except ValueError:
        return text


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping | list):
        return json.dumps(value, sort_keys=True, ensure_ascii=False, default=repr)
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def is_number(value: Any) -> bool:
    """Return whether a value can be too large or too small."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def blurred(text: str) -> str:
    """Return a text without its times, random ids and measured numbers."""
    for pattern, word in _BLURS:
        text = pattern.sub(word, text)
    return text


def without_times(text: str) -> str:
    """Return a text without its times."""
    for pattern, word in _TIMES:
        text = pattern.sub(word, text)
    return text


def looks_random(value: Any) -> bool:
    """Return whether a value can be an id that was generated at random or from the time."""
    if isinstance(value, str | bytes):
        return len(value) >= _LEAST
    return isinstance(value, UUID | datetime) or (isinstance(value, int) and value >= 1 << 31)


def difference(one: Any, other: Any) -> Part:
    """Return the largest part of a cell that is equal in two clean runs.

    ``blurred`` ignores times and random ids, a set of numbers ignores these words of the text, ``set``
    compares only whether there is a value, ``nothing`` compares nothing.
    """
    if (one is None) != (other is None):
        return "nothing"
    if not (isinstance(one, str) and isinstance(other, str)):
        return "set"
    one, other = blurred(one), blurred(other)
    if one == other:
        return "blurred"
    words, others = _TOKENS.split(one), _TOKENS.split(other)
    if len(words) != len(others) or words[1::2] != others[1::2]:
        return "set"
    differing = frozenset(index for index, word in enumerate(words) if word != others[index])
    same = [word for index, word in enumerate(words) if index not in differing and not index % 2 and word]
    return differing if same else "set"


def seen(value: Any, part: Part) -> Any:
    """Return the part of a cell that is compared."""
    if part == "nothing":
        return "…"
    if value is None:
        return None
    if part == "set":
        return "…"
    text = blurred(value) if isinstance(value, str) else value
    if part == "blurred" or not isinstance(text, str):
        return text
    return "".join("…" if index in part else word for index, word in enumerate(_TOKENS.split(text)))


def weaker(one: Part | None, other: Part) -> Part:
    """Return the comparison that ignores everything that one of the two comparisons ignores."""
    if one is None or one == other:
        return other
    if isinstance(one, frozenset) and isinstance(other, frozenset):
        return one | other
    order = ["blurred", frozenset, "set", "nothing"]
    return max(one, other, key=lambda part: order.index(frozenset if isinstance(part, frozenset) else part))


class Clock:
    """Time as the job's values can show it.

    :param began: seconds since 1970, before the first clean run; by default the time of creation.
    """

    def __init__(self, began: float | None = None) -> None:
        self.began = time.time() if began is None else began

    def soft(self, value: Any, *, declared: bool = False) -> Any:
        """Return :data:`NOW` for a time since the exploration began; any other value as it is.

        :param declared: whether the column is one of dates or times.
        """
        kind = type(value)
        if kind is int or kind is float:
            if value > self.began - SLACK and any(self._is_now(value / unit) for unit in UNITS):
                return NOW
            return value
        if kind is str and not (
            _LEAST <= len(value) <= _MOST and value[0].isdigit() and (declared or value[0] in "12")
        ):
            return self._without_now(value)
        if kind not in {str, datetime, date, time_of_day, Decimal}:
            return value
        if any(self._is_now(each) for each in seconds(value)) or self._is_today(value):
            return NOW
        return self._without_now(value) if kind is str else value

    def _without_now(self, text: str) -> str:
        """Return a text with each time since the exploration began replaced."""
        return TIME.sub(lambda found: NOW if any(map(self._is_now, meant(found))) else found[0], text)

    def moved(self, one: Any, other: Any) -> bool:
        """Return whether a time is later by at most the time since the exploration began.

        Such times are computed from the present: for example an expiry in an hour, in whole seconds or minutes.
        """
        if type(one) is not type(other):
            return False
        before, after = seconds(one), seconds(other)
        if not before or not after:
            return type(one) is str and self._moved_inside(one, other)
        return self._later(before, after, rounded=isinstance(one, datetime | str))

    def _moved_inside(self, one: str, other: str) -> bool:
        """Return whether two texts differ only in such times."""
        (parts, times), (others, later) = split(one), split(other)
        return parts == others and all(
            first[0] == second[0] or self._later(meant(first)[:1], meant(second)[:1], rounded=True)
            for first, second in zip(times, later, strict=True)
        )

    def _later(self, before: list[float], after: list[float], *, rounded: bool) -> bool:
        if not before or not after:
            return False
        later, now = after[0] - before[0], time.time()
        if 0 < later <= now - self.began + SLACK:
            return True
        if rounded and later in {60, 3600}:
            # Whole minutes or hours increase by one with the clock, in UTC or in local time.
            here = datetime.fromtimestamp(now, UTC).astimezone().utcoffset() or timedelta()
            starts = (0.0, here.total_seconds())
            return not before[0] % later and any(
                (self.began + start) // later != (now + start) // later for start in starts
            )
        return later == timedelta(days=1).total_seconds() and len(self._days()) > 1

    def _is_now(self, moment: float) -> bool:
        return self.began - SLACK <= moment <= time.time() + SLACK

    def _is_today(self, value: Any) -> bool:
        text = value.isoformat() if type(value) is date else value
        return isinstance(text, str) and text in self._days()

    def _days(self) -> set[str]:
        times = (self.began, time.time())
        zones = (UTC, None)
        return {datetime.fromtimestamp(each, zone).date().isoformat() for each in times for zone in zones}
