"""JSON text of data that this package stores."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_EMPTY: dict[type, str] = {list: "[]", dict: "{}"}


def encoded(value: Any) -> str:
    """Return JSON data as compact text.

    Numbers and empty values do not use the encoder, because starting it takes longer than the rest of a small record.

    :raises ValueError: for a float that is not finite.
    """
    kind = type(value)
    if kind is int or (kind is float and isfinite(value)):
        return repr(value)
    return _EMPTY[kind] if not value and kind in _EMPTY else _ENCODER.encode(value)
