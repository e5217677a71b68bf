"""URLs of databases and brokers, made safe to print.

A password can be in many places of a URL, and anywhere in a mistyped URL. So this module shows only the parts that are
certainly harmless, and replaces the rest with ``***``.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

HIDDEN = "***"

_URL = re.compile(
    r"""(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://
        (?:(?P<user>[^\s:@/?#\[\]]*)(?P<password>:[^\s:@/?#\[\]]*)?@)?
        (?P<host>[\w.\-]*|\[[0-9A-Fa-f:.]+\])
        (?P<port>:[0-9]+)?
        (?P<path>/[^\t\n\r@?#:]*)?
        (?:\?(?P<query>[^\s@?#]*))?""",
    re.VERBOSE,
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")

_HARMLESS = frozenset({
    "application_name", "charset", "check_same_thread", "client_name", "connect_timeout", "db", "dbname",
    "decode_responses", "health_check_interval", "host", "max_connections", "mode", "port", "protocol",
    "socket_connect_timeout", "socket_timeout", "ssl", "ssl_cert_reqs", "sslmode", "target_session_attrs", "timeout",
    "uri",
})  # fmt: skip
"""Query parameters whose values are shown; the value of any other parameter may be a secret."""


def shown(url: str) -> str:
    """Return the URL without any part that may be a password, for output and logs.

    If the text is not a valid URL, only the scheme is kept.
    """
    found = _URL.fullmatch(url)
    if found is None:
        scheme = _SCHEME.match(url)
        return f"{scheme[1]}://{HIDDEN}" if scheme else HIDDEN
    text = f"{found['scheme']}://"
    if found["user"] is not None:
        # A name without a password may be a password that was typed in the wrong place.
        text += f"{found['user']}:{HIDDEN}@" if found["password"] else f"{HIDDEN}@"
    text += found["host"] + (found["port"] or "") + (found["path"] or "")
    if found["query"]:
        pairs = (_pair(each) for each in found["query"].split("&"))
        text += "?" + "&".join(pairs)
    return text


def reason(error: BaseException, url: str) -> str:
    """Return the first line of an error about a URL, without the URL and its secrets.

    If the URL is not valid, the error may quote any part of it, so the whole error is omitted.
    """
    if _URL.fullmatch(url) is None:
        return "it cannot be parsed"
    text = (str(error).splitlines() or [""])[0] or type(error).__name__
    text = text.replace(url, shown(url))
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _pair(pair: str) -> str:
    name, _, _ = pair.partition("=")
    if unquote(name) in _HARMLESS:
        return pair
    return f"{name if re.fullmatch('[A-Za-z_]+', name) else HIDDEN}={HIDDEN}"


def _secrets(url: str) -> set[str]:
    """Return every part of the URL that may be a secret, as written and decoded."""
    _, _, rest = url.partition("://")
    before, at, _ = (rest or url).rpartition("@")
    found = {before.partition(":")[2], before} if at else set()
    query = url.partition("?")[2]
    found |= {value for name, value in parse_qsl(query) if name not in _HARMLESS}
    found |= {
        pair.partition("=")[2]
        for pair in query.split("&")
        if unquote(pair.partition("=")[0]) not in _HARMLESS
    }
    # Short texts occur in every sentence; replacing them would only make the message unreadable.
    return {each for text in found for each in (text, unquote(text)) if len(each) > 2}
