"""The files under deploy/ are accepted by the programs that read them, and name what there is."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import click
import kubernetes_validate
import pytest
import yaml
from grafana_foundation_sdk.cog import encoder, plugins
from grafana_foundation_sdk.models import dashboard as models
from redis import Redis
from rq import Queue

from harness.cli.app import MODULES, main
from harness.queues.rq import enqueue
from tests.documents import ROOT
from tests.web.jobs import Typed
from tests.web.site import Site
from tests.workers import PATIENCE

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
FUNCTIONS = {"sum", "by", "max", "min", "or", "vector", "increase", "on", "and"}
GRACE_SECONDS = 60


def program(name: str) -> str:
    """Return the path of a program; where it is not installed skip, or fail where it is required."""
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is not installed"
        (pytest.fail if os.environ.get("HARNESS_REQUIRE_SERVICES") == "1" else pytest.skip)(missing)
    return found


def run(*command: str | Path, **more: Any) -> None:
    """Run a check, and fail with what it says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_units(unit: Path, tmp_path: Path) -> None:
    """Each unit is free of errors and warnings, once its program is one that is installed here."""
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text(), flags=re.MULTILINE)
    copy = tmp_path / unit.name.replace("@", "@default")
    copy.write_text(text)
    done = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )
    # Faults of units that are installed here are not ours.
    said = [line for line in done.stderr.splitlines() if copy.name in line or unit.name in line]
    assert said == []


def documents(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the documents of a YAML file."""
    yield from (each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_accepts_the_manifests(manifest: Path) -> None:
    """Each object follows the schema of its kind, with no field that Kubernetes does not know."""
    objects = list(documents(manifest))
    assert objects
    for each in objects:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_compose_accepts_the_file() -> None:
    """The file follows the schema of the Compose specification."""
    schema = ("--builtin-schema", "vendor.compose-spec")
    run(sys.executable, "-m", "check_jsonschema", *schema, DEPLOY / "compose.yaml")


def commands() -> list[tuple[str, list[str]]]:
    """Return the harness commands in all files: where they stand, and their arguments."""
    found = [
        (unit.name, re.findall(r"^ExecStart=\S+/harness (.+)$", unit.read_text(), re.MULTILINE)[0].split())
        for unit in UNITS
    ]
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    found += [(f"compose {name}", each["command"]) for name, each in services.items() if "build" in each]
    for manifest in MANIFESTS:
        for each in documents(manifest):
            pod = each["spec"].get("template", {}).get("spec", {})
            found += [(manifest.name, container["args"]) for container in pod.get("containers", [])]
    return found


def test_the_commands_exist() -> None:
    """Each command that a file starts is one of ours, with options that it has."""
    assert len(commands()) == 6
    for where, (name, *arguments) in commands():
        assert name in MODULES, where
        command = main.get_command(None, name)  # type: ignore[arg-type]  # it does not look at the context
        assert command is not None
        command.make_parser(click.Context(command, info_name=name)).parse_args(arguments)


def test_the_grace_period_is_the_same_everywhere() -> None:
    """Workers get the same time to stop in all files, and so does the table that explains it."""
    worker = next(each for each in UNITS if "worker" in each.name).read_text()
    assert f"TimeoutStopSec={GRACE_SECONDS}\n" in worker
    assert f"stop_grace_period: {GRACE_SECONDS}s" in (DEPLOY / "compose.yaml").read_text()
    (deployment,) = documents(DEPLOY / "kubernetes" / "worker.yaml")
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == GRACE_SECONDS
    assert (DEPLOY / "README.md").read_text().count(f"| {GRACE_SECONDS} s |") == 3


def test_the_page_is_never_open_to_others_without_a_token() -> None:
    """A file that has the page listen on all addresses gives it a token."""
    for path in (DEPLOY / "compose.yaml", DEPLOY / "kubernetes" / "web.yaml"):
        text = path.read_text()
        assert "0.0.0.0" in text  # noqa: S104 - read, not bound
        assert "--token-file" in text or "HARNESS_WEB_TOKEN" in text
    assert '"127.0.0.1:8077:8077"' in (DEPLOY / "compose.yaml").read_text()


def queries() -> list[str]:
    """Return all queries of the dashboard and of the alerts."""
    shown = dashboard()
    found = [target["expr"] for panel in shown["panels"] for target in panel["targets"]]
    found += [each["query"]["query"] for each in shown["templating"]["list"] if each["name"] != "DS"]
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    return found + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_every_query_names_metrics_and_labels_that_are_exported(redis: Redis, queue: Queue) -> None:
    """Metrics and labels in the dashboard and the alerts are those that the page exports, and none is left out."""
    job = enqueue(queue, Typed, 3)
    with Site(redis) as site:
        client = site.client()
        client.act("pause", job.id)
        text = client.get("/metrics").text
    exported = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    labels = set(re.findall(r"[{,](\w+)=\"", text)) | {"job_class", "queue", "state"}
    named: set[str] = set()
    for query in queries():
        names = set(re.findall(r"\bharness_\w+", query))
        assert names, query
        assert names <= exported, query
        named |= names
        used = re.findall(r"by \(([\w, ]+)\)", query) + re.findall(r"[{,]\s*(\w+)=", query)
        assert {label for each in used for label in each.split(", ")} <= labels, query
    assert {each for each in exported if not each.endswith("_created")} == named


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return dict(json.loads((DEPLOY / "grafana" / "harness.json").read_text()))


def changed(ours: Any, read: Any, where: str = "") -> Iterator[str]:
    """Yield the places of values that are missing or other ones in what was read."""
    if isinstance(ours, dict) and isinstance(read, dict):
        for name, value in ours.items():
            yield from changed(value, read.get(name, "nothing"), f"{where}/{name}")
    elif isinstance(ours, list) and isinstance(read, list) and len(ours) == len(read):
        for number, (one, other) in enumerate(zip(ours, read, strict=True)):
            yield from changed(one, other, f"{where}/{number}")
    elif ours != read:
        yield f"{where}: {ours!r}, read as {read!r}"


def test_grafana_reads_the_dashboard_whole() -> None:
    """Grafana's own model of a dashboard takes every field: it writes all of them again, and adds defaults."""
    plugins.register_default_plugins()
    read = models.Dashboard.from_json(dashboard())
    written = json.loads(encoder.JSONEncoder(sort_keys=True).encode(read))
    assert list(changed(dashboard(), written)) == []


def test_panels_have_places_and_sources() -> None:
    """No two panels share an id or a cell of the grid of 24 columns, and all ask the Prometheus that is chosen."""
    panels = dashboard()["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    taken = set[tuple[int, int]]()
    for panel in panels:
        place, targets = panel["gridPos"], panel["targets"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert columns[-1] < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert len({each["refId"] for each in targets}) == len(targets) > 0
        for each in (panel, *targets):
            assert each["datasource"] == {"type": "prometheus", "uid": "${DS}"}


def test_no_label_is_one_that_prometheus_renames(redis: Redis, queue: Queue) -> None:
    """Prometheus keeps the labels job and instance for the target; exported ones would get other names."""
    enqueue(queue, Typed, 3)
    with Site(redis) as site:
        text = site.client().get("/metrics").text
    assert {"job", "instance"}.isdisjoint(re.findall(r"[{,](\w+)=\"", text))


@pytest.mark.process
def test_prometheus_accepts_settings_alerts_and_queries(tmp_path: Path) -> None:
    """Prometheus itself reads the settings, the alerts and each query of the dashboard."""
    promtool = program("promtool")
    for each in (DEPLOY / "prometheus").iterdir():
        shutil.copy(each, tmp_path)
    (tmp_path / "harness-web-token").write_text("token")
    run(promtool, "check", "config", tmp_path / "prometheus.yml")
    rules = [
        {
            "record": f"query:number{number}",
            "expr": re.sub(r"\$__rate_interval", "5m", query).replace("$queue", ".*"),
        }
        for number, query in enumerate(queries())
        if not query.startswith("label_values")
    ]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    run(promtool, "check", "rules", tmp_path / "queries.yml")


def answers(port: int, path: str) -> dict[str, Any]:
    """Ask Prometheus for JSON; empty while it does not answer."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as response:
            return dict(json.load(response))
    except OSError:
        return {}


@pytest.mark.process
def test_a_real_prometheus_answers_every_query(redis: Redis, queue: Queue, tmp_path: Path) -> None:
    """Prometheus scrapes the page, and each query of the dashboard and the alerts has an answer."""
    job = enqueue(queue, Typed, 3)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Site(redis) as site:
        site.client().act("pause", job.id)
        scrape = {
            "job_name": "h",
            "scrape_interval": "1s",
            "static_configs": [{"targets": [f"127.0.0.1:{site.port}"]}],
        }
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
        command = [
            program("prometheus"), f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'db'}", f"--web.listen-address=127.0.0.1:{port}",
        ]  # fmt: skip
        with (
            (tmp_path / "log").open("wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as process,
        ):
            try:
                limit, look = time.monotonic() + PATIENCE, "/api/v1/query?query=harness_queue_jobs"
                while not answers(port, look).get("data", {}).get("result"):
                    assert time.monotonic() < limit, (tmp_path / "log").read_text()
                    select.select([], [], [], 0.1)
                for query in queries():
                    if query.startswith("label_values"):
                        continue
                    asked = query.replace("$__rate_interval", "5m").replace("$queue", ".*")
                    assert answers(port, f"/api/v1/query?query={quote(asked)}").get("status") == "success", (
                        query
                    )
                waiting = quote('sum(harness_queue_jobs{place="queued"})')
                found = answers(port, f"/api/v1/query?query={waiting}")["data"]["result"]
                assert found[0]["value"][1] == "1"
                by_class = quote("sum by (job_class) (harness_jobs_crashes)")
                found = answers(port, f"/api/v1/query?query={by_class}")["data"]["result"]
                assert [each["metric"] for each in found] == [{"job_class": "Typed"}]
            finally:
                process.kill()


@pytest.mark.process
def test_prometheus_accepts_the_metrics(redis: Redis, queue: Queue) -> None:
    """The linter of Prometheus has nothing to say about the names and the help of the metrics."""
    enqueue(queue, Typed, 3)
    with Site(redis) as site:
        text = site.client().get("/metrics").text
    run(program("promtool"), "check", "metrics", input=text, env={**os.environ})
