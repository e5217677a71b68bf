"""Filter that keeps control characters out of log lines.

Ids, queue names, reasons and errors in a log line may come from Redis. A newline in them would forge a log line; an
escape sequence would control the terminal that shows the log.
"""

from __future__ import annotations

import logging
from typing import Any

from harness.boundary.texts import printable

_FORMATTER = logging.Formatter()


class Printable(logging.Filter):
    """Replaces control characters in the arguments of a log record, and in its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record where needed, and let it pass."""
        if isinstance(record.args, tuple):
            record.args = tuple(_printable(each) for each in record.args)
        elif isinstance(record.args, dict):
            record.args = {name: _printable(each) for name, each in record.args.items()}
        if record.exc_info and record.exc_text is None:
            text = _FORMATTER.formatException(record.exc_info)
            if printable(text, lines=True) != text:
                record.exc_text = printable(text, lines=True)  # formatters use it as it is
        return True


def guard(*names: str) -> None:
    """Add the filter to loggers, once."""
    for name in names:
        logger = logging.getLogger(name)
        if not any(isinstance(each, Printable) for each in logger.filters):
            logger.addFilter(Printable())


def _printable(value: Any) -> Any:
    if isinstance(value, int | float | None):
        return value
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - the text of an error is its author's code; logging reports it
        return value
    safe = printable(text)
    return value if safe == text else safe
