"""Setting for the modules whose job classes a worker may import.

A job in a queue names its class, and so does stored progress. Importing a module runs its code, so the name is
compared with ``HARNESS_JOB_MODULES`` before anything is imported.
"""

from __future__ import annotations

import os
import re
import reprlib
from functools import lru_cache

from harness.errors import JobNotAllowed, UsageError

SETTING = "HARNESS_JOB_MODULES"
"""Environment variable: names of modules and packages, separated by commas. Unset or empty allows every module."""


def modules() -> tuple[str, ...]:
    """Return the names in the setting.

    :raises UsageError: if the setting is not a list of module names.
    """
    return _names(os.environ.get(SETTING, ""))


@lru_cache(maxsize=16)
def _names(text: str) -> tuple[str, ...]:
    names = tuple(re.split(r"[\s,]+", text.strip(", \t\n")))
    for name in filter(None, names):
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(
                f"{SETTING} takes module names separated by commas, such as shop.jobs,billing; got {name!r}"
            )
    return tuple(filter(None, names))


def is_allowed(path: str) -> bool:
    """Return whether the setting allows the import of a class's module.

    A name allows the module itself and all modules of the package: ``shop`` allows ``shop.jobs``, not ``shopping``.

    :param path: dotted name of the class, ``module:qualname``.
    """
    module, names = path.partition(":")[0], modules()
    return not names or any(module == name or module.startswith(f"{name}.") for name in names)


def check(path: str) -> None:
    """Refuse the name of a class in a module that the setting does not allow.

    :raises JobNotAllowed: naming the module and the setting.
    """
    if not is_allowed(path):
        module = path.partition(":")[0]
        raise JobNotAllowed(
            f"the job names the module {reprlib.repr(module)}, which {SETTING} does not allow; nothing was imported, "
            f"and its progress was not changed; the allowed modules are {', '.join(modules())}"
        )
