"""Pairing: find corresponding rows of two runs that are not equal."""

from __future__ import annotations

from collections import Counter
from typing import Any

from harness.explore.cells import is_number

_FIRST, _WORDS = 0.5, 0.2
MOST = 300
"""Maximum number of rows for which all pairs are compared."""


def paired(missing: list[Any], extra: list[Any], width: int) -> list[tuple[Any, Any]]:
    """Return pairs of rows, the most similar first.

    Columns whose values differ between the two lists are ignored first, so that rows with otherwise equal
    cells are paired in their order.
    """
    pairs: list[tuple[Any, Any]] = []
    _by_columns(missing, extra, width, pairs)
    return pairs


def _by_columns(missing: list[Any], extra: list[Any], width: int, pairs: list[tuple[Any, Any]]) -> None:
    same = [
        index
        for index in range(width)
        if Counter(row[index] for row in missing) == Counter(row[index] for row in extra)
    ]
    groups: dict[Any, tuple[list[Any], list[Any]]] = {}
    for side, rows in enumerate((missing, extra)):
        for row in rows:
            groups.setdefault(tuple(row[index] for index in same), ([], []))[side].append(row)
    unpaired: tuple[list[Any], list[Any]] = ([], [])
    for ours, theirs in groups.values():
        if len(groups) > 1 and len(ours) == len(theirs):
            _by_columns(ours, theirs, width, pairs)
        else:
            unpaired[0].extend(ours)
            unpaired[1].extend(theirs)
    pairs += closest(*unpaired)


def closest(missing: list[Any], extra: list[Any]) -> list[tuple[Any, Any]]:
    """Return pairs of the most similar rows, each row once; many rows are paired by their order."""
    if len(missing) * len(extra) > MOST**2:
        return list(zip(missing, extra, strict=False))
    ranked = sorted(
        ((-_likeness(one, other), i, j) for i, one in enumerate(missing) for j, other in enumerate(extra)),
    )
    pairs, used, taken = [], set[int](), set[int]()
    for _, i, j in ranked:
        if i not in used and j not in taken:
            used.add(i)
            taken.add(j)
            pairs.append((missing[i], extra[j]))
    return pairs


def _likeness(one: Any, other: Any) -> float:
    """Return the similarity of two rows: equal cells, and for texts the share of equal words.

    The first columns count a little more, because they usually identify the row.
    """
    found = 0.0
    for index, (a, b) in enumerate(zip(one, other, strict=True)):
        if a == b:
            found += 1 + _FIRST / (index + 1)
        elif isinstance(a, str) and isinstance(b, str):
            words, others = a.split(), b.split()
            found += sum(map(str.__eq__, words, others)) * _WORDS / max(len(words), len(others), 1)
        elif is_number(a) and is_number(b):
            found += _WORDS
    return found
