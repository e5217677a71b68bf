"""Values of key columns: in the database, in a cursor, and as a parameter of a comparison.

Before a row is yielded, its value goes through the whole chain: the driver's value, the cursor, JSON, the
cursor of the next execution, and the bound parameter. If the end is not equal to the beginning, rows would be
skipped or repeated.
"""

from __future__ import annotations

import ipaddress
import json
import math
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.types import UserDefinedType

from harness.cursor import decode, encode
from harness.errors import CursorError, HarnessError
from harness.sources.selects import Column

_NATURAL = frozenset({int, str, bool, bytes, date, datetime, Decimal, UUID})
"""Types whose values JSON restores equal, except a NaN or an unusual time zone."""

_READ_AS_TEXT = frozenset({"INET", "CIDR"})
"""Types that a driver may shorten: pg8000 removes the host from 10.0.0.1/24."""

_INFINITE = {date.min, date.max, datetime.min, datetime.max}  # noqa: DTZ901 - compared without a zone
"""Values that asyncpg gives and takes for infinity as well."""

_NO_ORDER = (sa.ARRAY, sa.JSON)
_NO_CURSOR = {time, timedelta}
_ADDRESSES = (
    ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Interface, ipaddress.IPv6Interface,
    ipaddress.IPv4Network, ipaddress.IPv6Network,
)  # fmt: skip


class Stored(UserDefinedType[Any]):
    """Type of a driver's value: bound without a change and without a cast.

    So the database treats it as a value of the compared column. It can be rendered as a literal.
    """

    cache_ok = True

    def literal_processor(self, dialect: sa.Dialect) -> Callable[[Any], str]:
        """Return the function that renders a value for ``literal_binds``."""
        percent = "%%" if dialect.paramstyle in {"format", "pyformat"} else "%"

        def render(value: Any) -> str:
            if isinstance(value, bool) and dialect.supports_native_boolean:
                return "true" if value else "false"
            if isinstance(value, int | Decimal) or (isinstance(value, float) and math.isfinite(value)):
                return str(int(value) if isinstance(value, bool) else value)
            if isinstance(value, bytes):
                return f"'\\x{value.hex()}'" if dialect.name == "postgresql" else f"X'{value.hex()}'"
            if isinstance(value, str | date | UUID):
                return "'" + str(value).replace("'", "''").replace("%", percent) + "'"
            raise CursorError(f"a {type(value).__name__} cannot be rendered as a literal; got {value!r}")

        return render


STORED = Stored()


class KeyColumn:
    """Column of the key, with the conversion of its values to cursors and parameters.

    :ivar stored: column in the driver's form, which is used in comparisons because it is exact. :ivar read:
        form that a page selects. :ivar plain: whether cursors have the driver's values, without a check of
        each value. :ivar exact: whether values are equal in the database only if they are equal in Python,
        independent of collations.
    """

    def __init__(self, column: Column, descending: bool, dialect: sa.Dialect) -> None:
        kind = column.type.dialect_impl(dialect)
        bind = kind.bind_processor(dialect)
        base = getattr(kind, "impl_instance", kind)
        self.column, self.descending = column, descending
        self.stored = sa.type_coerce(column, STORED)
        self._as_text = getattr(base, "__visit_name__", "") in _READ_AS_TEXT
        self.read: Column = sa.type_coerce(sa.cast(column, sa.Text), STORED) if self._as_text else self.stored
        self.plain = bind is None and isinstance(kind, sa.Integer | sa.String)
        self.exact = isinstance(
            base, sa.Integer | sa.Numeric | sa.Date | sa.DateTime | sa.Uuid | sa.LargeBinary | sa.Boolean
        )
        self._sqlite = dialect.name == "sqlite"
        self._bind: Callable[[Any], Any] = bind or (lambda value: value)
        self._wrapper: Any = type(dialect.dbapi.Binary(b"")) if dialect.dbapi is not None else bytes
        if isinstance(base, sa.Numeric) and base is kind and not base.asdecimal and not self._sqlite:
            # As a float it would be compared as one, of which 16 digits count.
            self._bind = lambda value: Decimal(value) if type(value) is float else value
        if dialect.driver == "asyncpg" and isinstance(base, sa.Date | sa.DateTime):
            self._bind = partial(self._finite, self._bind)
        try:
            self.python_type: type = column.type.python_type
        except NotImplementedError:
            self.python_type = object
        self._natural = _NATURAL if self.python_type is object else _NATURAL & {self.python_type}
        self._orderless = isinstance(base, _NO_ORDER) or self.python_type in {list, dict, set, tuple}
        visit = str(getattr(base, "__visit_name__", "")).upper()
        self._orderless = self._orderless or visit.endswith("RANGE") or visit == "HSTORE"
        self._unheld = self.python_type in _NO_CURSOR and bind is None

    def __str__(self) -> str:
        known = self.python_type is not object
        return f"{self.column} ({self.python_type.__name__ if known else repr(self.column.type)})"

    def objection(self) -> str | None:
        """Return why no cursor can have the values of this column, judged by its type."""
        if self._orderless:
            return f"a cursor cannot hold a {type(self.column.type).__name__}; take another column"
        return "a cursor cannot hold it; take another column" if self._unheld else None

    def cursors(self, stored: Sequence[Any], values: Sequence[Any]) -> list[Any]:
        """Return the cursor values of a page, each from the driver's value and the converted one."""
        if self._as_text:
            return list(stored)
        if not self.plain:
            return list(map(self._cursor, stored, values))
        if set(map(type, stored)) == {self.python_type}:
            return list(stored)
        # SQLite keeps text in a column of numbers.
        return [each if type(each) is self.python_type else self._as_stored(each) for each in stored]

    def _cursor(self, stored: Any, value: Any) -> Any:
        if type(value) in self._natural:
            bound = self._bind(value)
            if bound == stored and type(bound) is type(stored):
                return value
        return self._awkward(stored, value)

    def _awkward(self, stored: Any, value: Any) -> Any:
        stored = self._unwrapped(stored)
        value = self._unwrapped(value)
        if type(value) in self._natural or (type(value) is float and self.python_type is float):
            bound = self.bound(value)
            # SQLite compares whole numbers and others exactly.
            numbers = self._sqlite and {type(bound), type(stored)} <= {int, float}
            if bound == stored and (numbers or type(bound) is type(stored)) and self._held(value):
                return value
        return self._as_stored(stored)

    def _as_stored(self, stored: Any) -> Any:
        if stored is None:
            return None
        if not self._held(stored):
            raise CursorError(
                f"a cursor cannot hold {stored!r} of {self.column}, because its value would change; use "
                "another column, or exclude such rows from the select"
            )
        return {"stored": stored}

    @staticmethod
    def _held(value: Any) -> bool:
        try:
            return bool(decode(json.loads(json.dumps(encode(value)))) == value)
        except HarnessError:
            return False

    def parse(self, cursor: Any) -> Any:
        """Return the parameter of a value in a cursor.

        :raises TypeError: or another error of the type, if it is not a value of this column.
        """
        if type(cursor) is dict and list(cursor) == ["stored"]:
            return cursor["stored"]
        if cursor is None or self.python_type not in {object, type(cursor)}:
            raise TypeError
        return self.bound(cursor)

    def _finite(self, bind: Callable[[Any], Any], value: Any) -> Any:
        bare = value.replace(tzinfo=None) if isinstance(value, datetime) else value
        if bare in _INFINITE:
            raise CursorError(
                f"a cursor cannot hold {value} of {self.column} under asyncpg, which does not tell it from infinity; "
                "take another driver or another column, or leave such rows out of the select"
            )
        return bind(value)

    def bound(self, value: Any) -> Any:
        """Return the parameter of a statement for a value of the column's type."""
        return self._unwrapped(self._bind(value))

    def _unwrapped(self, value: Any) -> Any:
        """Return a value without the driver's wrapper."""
        if isinstance(value, memoryview | bytearray):
            return bytes(value)
        if isinstance(value, UUID) and type(value) is not UUID:
            return UUID(int=value.int)
        if self._wrapper is not bytes and type(value) is self._wrapper:
            return bytes(value.obj if hasattr(value, "obj") else value.adapted)
        return str(value) if isinstance(value, _ADDRESSES) else value


def same(one: Any, other: Any) -> bool:
    """Return whether two cursors of one key are the same position; Python treats a repeated hour as equal."""
    return bool(one == other) and _folds(one) == _folds(other)


def _folds(cursor: Any) -> list[int]:
    values = cursor if isinstance(cursor, tuple) else (cursor,)
    return [value.fold for value in values if isinstance(value, datetime)]
