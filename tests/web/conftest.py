"""Fixtures for the tests of the page."""

from __future__ import annotations

import os
import shutil
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


@pytest.fixture(scope="session")
def page_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Run one browser for all tests of this process; without one skip, or fail where it is required."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        reason = "no chromium found; install it to see the page as its users do"
        (pytest.fail if os.environ.get("HARNESS_REQUIRE_SERVICES") == "1" else pytest.skip)(reason)
    with Browser(found, tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(page_browser: Browser) -> Iterator[Browser]:
    """Open an empty page."""
    with page_browser.page() as browser:
        yield browser
