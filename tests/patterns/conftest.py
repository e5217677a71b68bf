"""Fixtures of the suites that hold for plain and async jobs alike."""

from __future__ import annotations

from typing import Any

import pytest

from harness import iteration
from harness.queues.delivery import Order
from harness.runtime import async_items
from tests.awaited import twin_of
from tests.greenlets import call_test


@pytest.fixture(params=["plain", "awaited", "window", pytest.param("awaited window", marks=pytest.mark.full)])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run each test twice: with its jobs as they are, and with their async twins."""
    if "window" in request.param:
        for module in (iteration, async_items):
            monkeypatch.setattr(module, "is_concurrent", lambda job: True)
    if "awaited" in request.param:
        plain = Order.job_class

        def job_class(order: Order) -> Any:
            return twin_of(plain(order))

        monkeypatch.setattr(Order, "job_class", job_class)
    return str(request.param)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test in the greenlet of its async session, if it has one."""
    return call_test(pyfuncitem)
