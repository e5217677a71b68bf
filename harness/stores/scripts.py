"""Scripts that save in Redis in one round trip: replace a text if it is the expected one.

The server runs a script as a whole. Crash before it arrives: nothing is stored. Crash after it: the new text is stored.
If only the answer is lost, the caller reads the stored text. If redis-py sends the script again, the second run changes
nothing: the text that the first run stored is not the expected one. If a script arrives late, after its client gave up,
it also changes nothing if anything was stored since.

If a server does not run scripts, because of its access rules or because it is fakeredis, callers use ``WATCH``.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, NoScriptError, ResponseError

if TYPE_CHECKING:
    from redis import Redis


@dataclass(frozen=True)
class Script:
    """Script with one key; it returns 1 if it replaced the text, else 0."""

    source: str

    @property
    def sha(self) -> str:
        """SHA-1 digest that names the script on a server."""
        return sha1(self.source.encode(), usedforsecurity=False).hexdigest()


IN_HASH = Script(
    "if redis.sha1hex(redis.call('HGET', KEYS[1], ARGV[3]) or '') ~= ARGV[1] then return 0 end "
    "redis.call('HSET', KEYS[1], ARGV[3], ARGV[2]) return 1"
)
"""Arguments: hash of the expected text, the new text, the field."""

IN_KEY = Script(
    "if redis.sha1hex(redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end "
    "if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2]) "
    "else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end return 1"
)
"""Arguments: hash of the expected text, the new text, the TTL in seconds or an empty text."""

_SHAS = {script: script.sha for script in (IN_HASH, IN_KEY)}
_refused: weakref.WeakSet[Any] = weakref.WeakSet()
"""Connection pools of servers that have refused to run a script."""


def replaced(connection: Redis, script: Script, key: str, *, expected: str, text: str, last: Any) -> bool:
    """Replace the text under a key; return True if it was certainly replaced.

    After False the result is unknown: read the stored text.

    :param expected: text that must be stored now. :param last: third argument of the script.
    """
    pool = connection.connection_pool
    if pool in _refused or _is_fake(pool.connection_class):
        return False
    arguments = (1, key, sha1(expected.encode(), usedforsecurity=False).hexdigest(), text, last)
    try:
        try:
            answer: Any = connection.evalsha(_SHAS[script], *arguments)
        except NoScriptError:  # the first save since this server started
            answer = connection.eval(script.source, *arguments)
    except RedisConnectionError:  # perhaps only the answer is lost
        return False
    except ResponseError as error:  # access rules, or another type under the key; WATCH tells them apart
        if isinstance(error, NoPermissionError) or "unknown command" in str(error).lower():
            _refused.add(pool)
        return False
    return bool(answer == 1)


@cache
def _is_fake(connection_class: type) -> bool:
    """Return whether the connection is fakeredis's, which needs another package to run scripts."""
    return any(cls.__module__.startswith("fakeredis") for cls in connection_class.__mro__)
