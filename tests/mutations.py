"""Mutations of valid records: what other releases, other programs and people might have stored."""

from __future__ import annotations

import copy
import json
import math
from random import Random
from typing import Any

DEEP = 400
"""Levels of a value that is nested too deep."""

JUNK: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**70), 10**400, 0.0, -0.5, 1e308, math.nan, math.inf, -math.inf,
    "", "x", "\0", "\x1b[2J", "\x9b31m", "\u202e", "\ud800", "x" * 5_000, "9" * 5_000, "os:system", "Europe",
    "../../etc/passwd", "2024-02-30", "+24:00", [], [[]], [None], ["x", 1], [1, "x", 2], {}, {"": None}, {"x": 1},
    {"$tuple": 1}, {"$tuple": [{"$tuple": []}]}, {"$date": "yesterday"}, {"$date": 3}, {"$decimal": "NaN"},
    {"$decimal": 1.5}, {"$decimal": [0, [1], "F"]}, {"$uuid": "x"}, {"$bytes": "é"}, {"$bytes": "A"},
    {"$datetime": ["2024-01-01T00:00:00", "Europe", 0]}, {"$datetime": ["2024-01-01T00:00:00", "x" * 300, 0]},
    {"$datetime": ["2024-01-01T00:00:00", "a\0b", 0]}, {"$datetime": ["0001-01-01T00:00:00", "Asia/Tokyo", 7]},
    {"$datetime": "now"}, {"$dataclass": ["os:system", {}]}, {"$dataclass": [[], {}]}, {"$dataclass": ["x", []]},
    {"$enum": ["x", "y"]}, {"$enum": [{}, []]}, {"$dict": []}, {"$dict": {"$set": 1}}, {"$set": []},
]  # fmt: skip
"""Values in the place of others."""


def mutated(data: Any, random: Random) -> bytes:
    """Return a record as bytes, changed in one to three places; one in four is damaged as text."""
    data = copy.deepcopy(data)
    for _ in range(random.randint(1, 3)):
        data = _changed(data, random)
    text = json.dumps(data).encode("utf-8", "surrogatepass")
    return _damaged(text, random) if random.random() < 0.25 else text


def mutated_data(data: Any, random: Random) -> Any:
    """Return a record as JSON data, changed in one to three places."""
    data = copy.deepcopy(data)
    for _ in range(random.randint(1, 3)):
        data = _changed(data, random)
    return data


def _changed(data: Any, random: Random) -> Any:
    holder: dict[str, Any] = {"all": data}
    at: Any = holder
    key: Any = "all"
    while isinstance(at[key], dict | list) and at[key] and random.random() < 0.85:
        at = at[key]
        key = random.choice(list(at)) if isinstance(at, dict) else random.randrange(len(at))
    choice = random.random()
    if choice < 0.1 and at is not holder:
        del at[key]
    elif choice < 0.2:
        at[key] = [at[key]] * random.choice([1, 2, 3])
    elif choice < 0.25:
        at[key] = {"$tuple": [at[key]]}
    elif choice < 0.3:
        for _ in range(random.choice([50, 140, DEEP])):
            at[key] = random.choice([[at[key]], {"x": at[key]}, {"$tuple": [at[key]]}])
    elif choice < 0.35 and isinstance(at, dict):
        at[random.choice(["colour", "$x", "\x1b", ""])] = random.choice(JUNK)
    else:
        at[key] = copy.deepcopy(random.choice(JUNK))
    return holder["all"]


def _damaged(text: bytes, random: Random) -> bytes:
    at = random.randrange(len(text) + 1)
    return random.choice(
        [
            text[:at], text[at:], text[:at] + bytes([random.randrange(256)]) + text[at + 1 :], b"", b"\xff" + text,
            text[:at] + b"\xed\xa0\x80" + text[at:], text.replace(b'"', b"'"), text + text, b"[" * 100_000,
            b'{"a":' * 100_000, b"9" * 5_000, text.replace(b": ", b":NaN", 1),
        ]
    )  # fmt: skip
