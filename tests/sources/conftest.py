"""Hook of the suites that hold for ``AsyncSession`` as well."""

from __future__ import annotations

import pytest

from tests.greenlets import call_test


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test in the greenlet of its async session, if it has one."""
    return call_test(pyfuncitem)
