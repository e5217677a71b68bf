"""Description of the tables of a PostgreSQL database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TABLES = """
SELECT c.oid::bigint, quote_ident(n.nspname) || '.' || quote_ident(c.relname), n.nspname, c.relname,
       array_agg(quote_ident(a.attname) ORDER BY a.attnum), array_agg(a.attname::text ORDER BY a.attnum),
       array_agg(t.typname::text ORDER BY a.attnum), array_agg(a.attgenerated <> '' ORDER BY a.attnum),
       array_agg(coalesce(
         pg_get_serial_sequence(quote_ident(n.nspname) || '.' || quote_ident(c.relname), a.attname), ''
       ) ORDER BY a.attnum),
       (SELECT array_agg(k.attname::text ORDER BY array_position(i.indkey::int2[], k.attnum)) FROM pg_index i
        JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = ANY (i.indkey::int2[])
        WHERE i.indrelid = c.oid AND i.indisprimary),
       (SELECT array_agg(f.confrelid::bigint) FROM pg_constraint f WHERE f.conrelid = c.oid AND f.contype = 'f'),
       (SELECT array_agg(ARRAY[r.attname::text, f.confrelid::bigint::text]) FROM pg_constraint f
        JOIN pg_attribute r ON r.attrelid = c.oid AND r.attnum = f.conkey[1]
        WHERE f.conrelid = c.oid AND f.contype = 'f' AND array_length(f.conkey, 1) = 1)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
GROUP BY c.oid, n.nspname, c.relname ORDER BY 2
"""
"""Query of all user tables; :func:`described` reads a row of the result."""


@dataclass(frozen=True)
class Described:
    """A table: its quoted name, its columns, its key and the tables that it refers to."""

    oid: int
    quoted: str
    name: str
    columns: tuple[str, ...]
    quoted_columns: tuple[str, ...]
    types: tuple[str, ...]
    generated: tuple[bool, ...]
    numbered: tuple[bool, ...]
    key: tuple[str, ...]
    refers_to: frozenset[int]
    references: tuple[tuple[str, int], ...]

    @property
    def written(self) -> list[str]:
        """The quoted names of the columns that can be written."""
        return [name for name, made in zip(self.quoted_columns, self.generated, strict=True) if not made]


def described(row: Any) -> Described:
    """Return the table that a row of :data:`TABLES` describes."""
    oid, quoted, schema, name, quoted_columns, columns, types, generated, serials, key, refers, single = row
    return Described(
        oid,
        quoted,
        name if schema == "public" else f"{schema}.{name}",
        tuple(columns),
        tuple(quoted_columns),
        tuple(types),
        tuple(generated),
        tuple(bool(each) for each in serials),
        tuple(key or ()),
        frozenset(refers or ()),
        tuple((column, int(each)) for column, each in single or ()),
    )
