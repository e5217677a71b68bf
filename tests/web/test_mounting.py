"""The page in applications of FastAPI and Django, made of the files that docs/web.md shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from harness.queues.history import history
from harness.queues.rq import enqueue
from tests.documents import ROOT, blocks
from tests.web.site import Client
from tests.worker_jobs import Numbers

pytestmark = pytest.mark.process

SETTINGS = """
SECRET_KEY = "of this test"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.db"}}
ROOT_URLCONF = "shop_site.urls"
"""
URLS = """
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse("the shop"))]
"""
USERS = """
import django

django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

call_command("migrate", verbosity=0)
User.objects.create_superuser("ann")
User.objects.create_user("ben", is_staff=True)
User.objects.create_user("eve")
for name in ("ann", "ben", "eve"):
    client = Client()
    client.force_login(User.objects.get(username=name))
    print(client.cookies["sessionid"].value)
"""
FASTAPI_ROOT = """

@app.get("/")
def home():
    return "the shop"
"""


@dataclass
class Served:
    """An application that runs.

    :ivar sessions: Django's session of each user; empty if the application takes a name.
    """

    port: int
    sessions: Mapping[str, str]

    def visitor(self, user: str) -> Visitor:
        """Return a browser in which a user is logged in."""
        return Visitor(Client(self.port), user, self.sessions.get(user, ""))


@dataclass
class Visitor:
    """A user with a browser."""

    client: Client
    user: str
    session: str

    @property
    def headers(self) -> dict[str, str]:
        """Headers that say who asks."""
        if not self.session:
            return {"X-User": self.user}
        cookies = [self.client.cookie, f"sessionid={self.session}"]
        return {"Cookie": "; ".join(filter(None, cookies))}

    def get(self, path: str) -> int:
        """Open a page, and return the status."""
        return self.client.get(path, **self.headers).status

    def act(self, action: str, job_id: str) -> int:
        """Press a button, and return the status."""
        return self.client.post("/jobs/act", self.headers, action=action, job=job_id).status


def write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the files that docs/web.md shows, each followed by a text if there is one for it, and other files."""
    shown = {block.target: block.text for block in blocks(ROOT / "docs" / "web.md") if block.target}
    for name in {*shown, *texts}:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(shown.get(name, "") + texts.get(name, ""))


@contextmanager
def serving(folder: Path, redis_url: str, name: str) -> Iterator[int]:
    """Serve an application with uvicorn; yield the port."""
    environment = {**os.environ, "HARNESS_REDIS_URL": redis_url, "PYTHONPATH": f"{folder}:{ROOT}"}
    command = [sys.executable, "-m", "uvicorn", name, "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        try:
            said = ""
            while not (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", said)):
                line = process.stderr.readline()
                assert line, said
                said += line
            yield int(found[1])
        finally:
            process.kill()


@pytest.fixture(params=["fastapi", "django"])
def served(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[Served]:
    """Serve the page in an application of a framework; tests without that framework fail."""
    write(
        tmp_path, {"shop/api.py": FASTAPI_ROOT, "shop_site/settings.py": SETTINGS, "shop_site/urls.py": URLS}
    )
    sessions = dict[str, str]()
    if request.param == "django":
        made = subprocess.run(
            [sys.executable, "-c", USERS], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "shop_site.settings"},
        )  # fmt: skip
        sessions = dict(zip(("ann", "ben", "eve"), made.stdout.split(), strict=True))
    name = {"fastapi": "shop.api:app", "django": "shop_site.asgi:application"}[request.param]
    with serving(tmp_path, redis_url, name) as port:
        yield Served(port, sessions)


def test_the_page_in_an_application(served: Served, broker: Redis, jobs_queue: Queue) -> None:
    """The application keeps its addresses, and its users alone look and steer, each as the hook says."""
    job = enqueue(jobs_queue, Numbers, 3)
    ann, ben = served.visitor("ann"), served.visitor("ben")
    stranger = Client(served.port)
    assert "the shop" in stranger.get("/").text
    assert stranger.get("/jobs/").status == stranger.get("/jobs/metrics").status == 403
    for visitor in (ann, ben):
        assert visitor.get("/jobs/") == visitor.get(f"/jobs/job?id={job.id}") == 200
        assert visitor.get("/jobs/static/app.js") == 200
        with visitor.client.events("/jobs/events", visitor.headers) as events:
            assert next(events)[0] == "hello"
    assert ben.act("pause", job.id) == 403
    assert history(broker, job.id)[0] == []
    assert ann.act("pause", job.id) == 200
    assert [(each.action, each.by) for each in history(broker, job.id)[0]] == [("pause", "ann")]


def test_a_user_without_the_right_sees_nothing(served: Served) -> None:
    """A user of the application whom the hook refuses gets neither the page nor its stream."""
    eve = served.visitor("eve" if served.sessions else "")
    assert eve.get("/jobs/") == eve.get("/jobs/events") == 403
