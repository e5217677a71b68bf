"""Clients in C, which raise no audit events: their use is reported, unless a watched client uses them.

Clients that are loaded when an exploration begins are hooked. Other clients in C are reported if a module of
the job has them, or one of their connections, in a variable: see :func:`held`.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, suppress
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any

from harness.explore.crash import current, is_accounted
from harness.explore.probes.callers import caller
from harness.explore.probes.patching import patched

IN_C = (
    "MySQLdb", "apsw", "confluent_kafka", "curl_cffi", "cx_Oracle", "duckdb", "grpc", "lmdb", "oracledb", "plyvel",
    "pycurl", "pymssql", "pyodbc", "rocksdb", "zmq",
)  # fmt: skip
"""Clients in C that cannot be hooked: a module of the job that has one in a variable is reported."""

_HOOKED = (
    ("psycopg._connection_base", "BaseConnection", ("_connect_gen",)), ("asyncpg.connect_utils", "", ("_connect",)),
    ("psycopg2", "", ("_connect",)), ("asyncpg.connection", "Connection", ("execute", "executemany", "fetch")),
    ("dbm.gnu", "", ("open",)), ("dbm.ndbm", "", ("open",)),
    ("multiprocessing.util", "", ("spawnv_passfds",)), ("multiprocessing.process", "BaseProcess", ("start",)),
    ("multiprocessing.connection", "Connection", ("_send_bytes",)),
)  # fmt: skip
"""Module, class and functions that raise no audit event."""


def probes() -> AbstractContextManager[None]:
    """Hook them, until the block ends."""
    patches: list[tuple[Any, str, Any]] = []
    for module, owner, names in _HOOKED:
        loaded: Any = (
            _small(module) if module.partition(".")[0] in sys.stdlib_module_names else sys.modules.get(module)
        )
        found = getattr(loaded, owner, None) if owner else loaded
        patches += [(found, name, _reporting(module)) for name in names if hasattr(found, name)]
    return patched(*patches)


def _small(module: str) -> ModuleType | None:
    """Import a part of the standard library that the job may import only when it runs."""
    with suppress(ImportError):
        return import_module(module)
    return None


def _reporting(module: str) -> Any:
    library = module.partition(".")[0]

    def wrap(call: Any) -> Any:
        if isinstance(call, classmethod):
            return classmethod(wrap(call.__func__))

        @wraps(call)
        def hooked(*args: Any, **kwargs: Any) -> Any:
            simulated = current()
            if simulated is not None and not is_accounted():
                found = caller(2)
                if found is not None:
                    words = (
                        "is used without SQLAlchemy"
                        if library in _DRIVERS
                        else "reaches another process or a file"
                    )
                    simulated.unseen(library, f"{library} {words}", found.line)
            return call(*args, **kwargs)

        return hooked

    return wrap


_DRIVERS = {"psycopg", "psycopg2", "asyncpg"}
SILENT = {"psycopg", "psycopg2", *IN_C}
"""Clients in C whose connections raise no audit events."""
