"""Fixtures for the tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.browser import Browser
from tests.web.jobs import JOBS
from tests.web.site import Client, Site


@pytest.fixture
def site(redis: Redis) -> Iterator[Site]:
    """Serve the page of a Redis of the test's own."""
    with Site(redis, jobs=JOBS) as site:
        yield site


@pytest.fixture
def client(site: Site) -> Client:
    """Return a client of the page."""
    return site.client()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """Open an empty page."""
    with chromium.page() as browser:
        yield browser
