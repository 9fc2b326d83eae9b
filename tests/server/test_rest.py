"""The REST interface of the Jupyter server's extension, on a real server."""

from __future__ import annotations

import json
import os
from importlib import resources

import httpx
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import response_schema_conformance

from tests.site.account import until

pytestmark = pytest.mark.slow

NONE = "0123456789abcdef"
"""The id of no cluster, and the name of no queue."""
DESCRIBED = yaml.safe_load((resources.files("hpcnb.server") / "openapi.yaml").read_text())
ROUTES = [
    (
        method,
        path.replace("{id}", NONE)
        .replace("{queue}", NONE)
        .replace("{log}", "job.log")
        .replace("{task}", "1")
        .replace("{name}", "local")
        .lstrip("/"),
    )
    for path, methods in DESCRIBED["paths"].items()
    for method in methods
    if method != "parameters"
]
WRITING = [(method, path) for method, path in ROUTES if method != "get"]
REQUESTS = 10_000 if os.environ.get("HPCNB_LAB_LONG") else 400
"""How many are generated, and the seconds that they may take on a busy machine."""


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_token_403(api, method, path):
    """Nothing is told to whoever has no token."""
    assert httpx.request(method, str(api.base_url) + path).status_code == 403


@pytest.mark.parametrize(("method", "path"), WRITING)
def test_without_xsrf_403(jupyter, api, method, path):
    """A page of somebody else, which has the browser's cookies and not the token, changes nothing."""
    with httpx.Client() as browser:
        browser.get(f"{jupyter.url}api/status", params={"token": jupyter.token}).raise_for_status()
        assert browser.get(f"{api.base_url}sites").status_code == 200, "the cookie does not count"
        assert browser.request(method, f"{api.base_url}{path}").status_code == 403


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if NONE in route[1]])
def test_unknown_ids_404(api, method, path):
    """A cluster or a queue that is not there is not found, by no method."""
    said = api.request(method, path, json={"nodes": 1} if path.endswith("scale") else None)
    what = f"there is no cluster {NONE}" if path.startswith("clusters") else f"there is no queue '{NONE}'"
    assert (said.status_code, said.json()["message"].startswith(what)) == (404, True)


def known(api):
    """The clusters, also those of other tests that have ended."""
    return [cluster["id"] for cluster in api.get("clusters").json()["clusters"]]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("clusters", "{", "the body is not JSON"),
        ("clusters", "[1]", "the body is not an object; allowed: name, site, wishes"),
        ("clusters", '{"nodes": 2}', "the body has unknown keys: ['nodes']"),
        ("clusters", '{"site": 7}', "site is 7; it must be a string"),
        ("clusters", '{"wishes": {"name": "x"}}', "wishes is"),
        ("clusters", '{"site": "nowhere"}', "there is no site 'nowhere'"),
        ("clusters", '{"wishes": {"walltime": "soon %s"}}', "'soon %s' is not a duration"),
        ("clusters", '{"wishes": {"nodse": 2}}', "there is no argument 'nodse'"),
        (f"clusters/{NONE}/scale", '{"nodes": -1}', "nodes is -1; it must be a whole number from 0"),
        (f"clusters/{NONE}/scale", '{"nodes": true}', "nodes is true; it must be"),
        (f"queues/{NONE}/pause", '{"now": true}', "the body has unknown keys: ['now']; allowed: none"),
        (f"queues/{NONE}/launch", '{"jobs": 0}', "jobs is 0; it must be a whole number from 1 to 1000"),
        (f"queues/{NONE}/launch", '{"wishes": {"func": "f"}}', "wishes is"),
        (f"queues/{NONE}/launch", '{"pack": 1}', "pack is 1; it must be true or false"),
        (f"queues/{NONE}/retry?site=nowhere", "{}", "there is no site 'nowhere'"),
    ],
)
def test_malformed_bodies_400_with_a_message(api, path, body, message):
    """What is wrong with a request is said, and nothing is done."""
    before = known(api)
    said = api.post(path, content=body)
    assert said.status_code == 400
    assert message in said.json()["message"]
    assert known(api) == before


@pytest.mark.parametrize("query", ["most=0", "most=1001", "after=x", "after=-1", "state=Lost"])
def test_malformed_queries_400_with_a_message(api, query):
    """A page of tasks that cannot be is refused before a queue is asked."""
    said = api.get(f"queues/{NONE}/tasks?{query}")
    assert (said.status_code, "; it must be " in said.json()["message"]) == (400, True)


def test_it_describes_itself(api):
    """The description is part of the interface, and is what these tests go by."""
    assert yaml.safe_load(api.get("openapi.yaml").text) == DESCRIBED


@pytest.mark.timeout(REQUESTS)
def test_generated_requests_no_5xx(jupyter, api):
    """Whatever is sent, nobody is told of an internal error, and answers are as described."""
    # So that whatever cluster is asked for is refused before anything is started.
    strict = {"batch": "process", "cores-per-node": 1, "cores-per-worker": 2, "workers-per-node": 2}
    jupyter.configure(json.dumps({"hpcnb": {"default-site": "strict", "sites": {"strict": strict}}}))
    schema = schemathesis.openapi.from_dict(DESCRIBED)
    operations = [found.ok() for found in schema.get_all_operations()]
    sent, before = 0, known(api)

    def send(case):
        nonlocal sent
        sent += 1
        said = case.call(base_url=str(api.base_url).rstrip("/"), headers=dict(api.headers))
        assert said.status_code < 500, (case, said.text)
        case.validate_response(said, checks=[response_schema_conformance])

    try:
        for operation in operations:
            few = settings(
                max_examples=REQUESTS // len(operations),
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            few(given(operation.as_strategy())(send))()
    finally:
        jupyter.configure("")
    assert sent >= REQUESTS * 0.5
    assert known(api) == before


def test_a_cluster_from_start_to_end(jupyter, api):
    """Start, watch, keep, read the logs, end: the same cluster that the command line sees."""
    made = api.post("clusters", json={"site": "local", "name": "rest", "wishes": {"walltime": "10m"}})
    assert made.status_code == 201, made.text
    path = f"clusters/{made.json()['id']}"
    until(lambda: api.get(path).json()["state"] == "ready")
    assert "rest on local: ready" in jupyter.command("status")
    assert api.post("clusters", json={"site": "local", "name": "rest"}).status_code == 409
    assert api.post(f"{path}/keep").json()["state"] == "ready"
    assert api.get("sites/local/limits").json()["partitions"] == []
    names = api.get(f"{path}/logs", params={"most": 0}).json()["logs"]
    assert (set(names.values()), "logs/scheduler.log" in names) == ({""}, True)
    begin = api.get(f"{path}/logs/logs/scheduler.log", params={"most": 10}).json()
    rest = api.get(f"{path}/logs/logs%2Fscheduler.log", params={"offset": begin["next"]}).json()
    (whole,) = api.get(f"{path}/logs", params={"name": "scheduler"}).json()["logs"].values()
    assert (begin["text"] + rest["text"]).startswith(whole)
    assert api.get(f"{path}/logs/job.sh").status_code == 404
    assert api.get(f"{path}/logs/job.log?offset=x").status_code == 400
    ended = api.delete(path).json()
    assert (ended["state"], ended["ending"]["reason"]) == ("ended", "completed")
    assert json.loads(jupyter.command("status", "--json")) == []
