"""Foreign texts, such as error messages, prepared for storage: each has a size limit and can be encoded.

Progress itself is never shortened: a shortened cursor would be another position.
"""

from __future__ import annotations

import re
from html import escape
from json.encoder import encode_basestring_ascii

LIMIT = 2_000
"""Size limit of a stored text in bytes of JSON; the middle of a longer text is cut out."""

_MARK = re.compile(r" \.\.\. \[([\d,]+) characters left out\] \.\.\. ")
_MARK_BYTES = 50
"""Maximum size of the mark."""


def bounded(text: str, limit: int = LIMIT) -> str:
    """Return *text*, or its head and tail with a mark between them that counts the omitted characters.

    NUL and lone surrogates, which databases and terminals refuse, become escapes. A shortened text may be
    shortened again: the mark then counts both.

    :param limit: size in bytes, as JSON in ASCII.
    """
    text = storable(text)
    if _size(text) <= limit:
        return text
    if limit < 2 * _MARK_BYTES:
        return _head(text, limit)
    half = (limit - _MARK_BYTES) // 2
    head, tail = _head(text, half), _head(text[::-1], half)[::-1]
    left_out = text[len(head) : len(text) - len(tail)]
    number = len(left_out) + sum(
        int(each[1].replace(",", "")) - len(each[0]) for each in _MARK.finditer(left_out)
    )
    return f"{head} ... [{number:,} characters left out] ... {tail}"


def storable(text: str) -> str:
    """Return *text* with escapes instead of NUL and lone surrogates, which have no UTF-8 form."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def printable(text: str, *, lines: bool = False) -> str:
    """Return *text* without characters that control a terminal or reorder text.

    ASCII and Latin-1 control characters, escape sequences, bidirectional overrides and lone surrogates become
    replacement characters. White space becomes a space.

    :param lines: keep line breaks.
    """
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or (lines and each == "\n")
        else " "
        if each.isspace()
        else "\N{REPLACEMENT CHARACTER}"
        for each in text
    )


def escaped(text: str) -> str:
    """Return *text* escaped for HTML, SVG and their attributes."""
    return escape(printable(text))


def error_text(error: BaseException) -> str:
    """Return an error as ``Type: message``, also if its ``__str__`` raises."""
    try:
        message = str(error)
    except Exception as second:  # noqa: BLE001 - a user-defined __str__ may raise anything
        message = f"(its message cannot be shown: {type(second).__name__})"
    return f"{type(error).__name__}: {message}"


def _size(text: str) -> int:
    return len(encode_basestring_ascii(text)) - 2


def _head(text: str, limit: int) -> str:
    size = 0
    for index, character in enumerate(text[: limit + 1]):
        size += _size(character)
        if size > limit:
            return text[:index]
    return text[:limit]
