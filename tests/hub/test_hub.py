"""Two users of one JupyterHub: a panel each, an agent each, and nothing of the other's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import browser
from tests.hub.hub import USERS, running_hub
from tests.isolation import below
from tests.site import attacker
from tests.site.account import LISTENS, connections, socket_inodes, until, words

__all__ = ["browser"]

PANEL = Path(__file__).parents[2] / "labextension" / "dist"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.getuid() != 0, reason="needs root to start servers for two users"),
]


@pytest.fixture(scope="module")
def hub():
    """A hub with a server for each user, and a second one for ada."""
    with running_hub() as hub:
        hub.start(("ada", ""), ("bob", ""), ("ada", "second"))
        yield hub


@pytest.fixture(scope="module")
def clients(hub):
    """Requests of each user."""
    made = {name: hub.client(name) for name in USERS}
    yield made
    for client in made.values():
        client.close()


def api(name, path="", server=""):
    """The address of something of a user's server, behind the hub's."""
    return f"/user/{name}{f'/{server}' if server else ''}/hpcnb/api/{path}"


def state(client, address):
    """The states of a user's clusters, by name."""
    return {c["spec"]["name"]: c["state"] for c in client.get(address).json()["clusters"]}


@pytest.fixture(scope="module")
def ids(hub, clients, browser, tmp_path_factory):
    """A cluster of each user, ready: ada's was started from the form of her panel, bob's by a request."""
    asked = clients["bob"].post(api("bob", "clusters"), json={"site": "centre", "name": "his"})
    assert asked.status_code == 201, asked.text
    if PANEL.exists():
        from_the_form(hub, browser, tmp_path_factory.mktemp("hub"))
    else:
        clients["ada"].post(api("ada", "clusters"), json={"site": "centre", "name": "hers"})
    for name, cluster in (("ada", "hers"), ("bob", "his")):
        until(lambda n=name, c=cluster: state(clients[n], api(n, "clusters")) == {c: "ready"})
    return {name: clients[name].get(api(name, "clusters")).json()["clusters"][0]["id"] for name in USERS}


def from_the_form(hub, browser, folder):
    page = browser.new_page()
    page.goto(f"{hub.url}/hub/login")
    page.get_by_label("Username").fill("ada")
    page.get_by_label("Password").fill(hub.password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_title("HPC clusters").first.click()
    panel = page.locator(".hpcnb-panel")
    expect(panel.locator("form").get_by_label("Site").locator("option")).to_have_text(["local", "centre"])
    panel.get_by_label("Name").fill("hers")
    panel.get_by_role("button", name="Start", exact=True).click()
    mine = page.locator(".hpcnb-card[data-name='hers']")
    expect(mine).to_have_attribute("data-state", "ready")
    with page.context.expect_page() as opened:
        mine.get_by_role("button", name="Dashboard", exact=True).click()
    assert opened.value.url.startswith(f"{hub.url}/user/ada/proxy/hpcnb/")
    expect(opened.value.locator("body")).to_contain_text("Task Stream")
    page.screenshot(path=folder / "panel.png")
    opened.value.close()
    page.close()


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
PAIRS = pytest.mark.parametrize(("me", "other"), [("ada", "bob"), ("bob", "ada")])


@PAIRS
def test_the_hub_lets_nobody_into_anothers_server(hub, clients, ids, me, other):
    """Another's clusters, logs and dashboard: refused at his server, and unknown at one's own."""
    mine = clients[me]
    there = ids[other]
    assert {site["name"] for site in mine.get(api(me, "sites")).json()["sites"]} == {"centre", "local"}
    for path in ("clusters", f"clusters/{there}", f"clusters/{there}/logs"):
        assert mine.get(api(other, path)).status_code == 403
    assert mine.delete(api(other, f"clusters/{there}")).status_code == 403
    with httpx.Client(base_url=mine.base_url, headers=mine.headers) as once:  # a connection that is no more after it
        assert once.get(api(other, "news"), headers=UPGRADE).status_code == 403
    assert mine.get(f"/user/{other}/proxy/hpcnb/{there}/status").status_code in (302, 403)
    for path in (f"clusters/{there}", f"clusters/{there}/logs"):
        assert mine.get(api(me, path)).status_code == 404
    assert mine.delete(api(me, f"clusters/{there}")).status_code == 404
    assert mine.get(f"/user/{me}/proxy/hpcnb/{there}/status").status_code == 503


@PAIRS
def test_nobody_reaches_anothers_agent(hub, clients, ids, me, other):
    """By sockets, ports, files and processes of the other, tried as a user of the machine, nothing is to be had."""
    found = hub.processes(other)
    ports = {inode: address for address, _, state, inode in connections() if state == LISTENS}
    listening = [(process, ports[i]) for process in found for i in socket_inodes(process.pid) if i in ports]
    servers = [port for process, port in listening if "jupyterhub.singleuser" in words(process)]
    # The server itself answers everybody on this machine, and sends strangers to the hub.
    for _, port in servers:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=clients[me].headers) as direct:
            asked = [direct.get(f"/hub-test{api(other, 'clusters', server)}") for server in ("", "second")]
            assert 403 in {answer.status_code for answer in asked} <= {403, 404}
    sockets = [row.split()[-1] for row in Path("/proc/net/unix").read_text().splitlines() if f"-{USERS[other]}/" in row]
    home = hub.homes[other]
    runtime = Path(f"/tmp/hpcnb-{USERS[other]}")
    assert str(runtime / "agent.sock") in sockets
    targets = {
        "ports": [port for _, port in listening if port not in servers],
        "sockets": [
            *sockets,
            str(runtime / ids[other] / "scheduler.sock"),
            str(runtime / ids[other] / "dashboard.sock"),
        ],
        "files": [str(path) for path in (runtime, *below(home))],
        "processes": [process.pid for process in found],
    }
    assert len(targets["files"]) > 50
    done = subprocess.run(
        [sys.executable, attacker.__file__, str(USERS[me])],
        input=json.dumps(targets),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout or "0")) == (0, []), done.stderr


def test_the_idle_culler_ends_no_cluster(hub, clients, ids, figure):
    """A named server shows the same clusters; when all of the servers were culled they go on, and the next one shows them."""
    ada = clients["ada"]
    assert state(ada, api("ada", "clusters", "second")) == {"hers": "ready"}
    hub.cull()
    assert any("hpcnb.agent" in words(process) for process in hub.processes("ada"))
    hub.start(("ada", ""), ("bob", ""))
    begun = time.monotonic()
    assert state(ada, api("ada", "clusters")) == {"hers": "ready"}
    figure(
        f"a server that was started again shows its user's clusters after {time.monotonic() - begun:.2f} s (goal 3 s)"
    )
    assert ada.delete(api("ada", f"clusters/{ids['ada']}")).status_code == 200
    assert state(clients["bob"], api("bob", "clusters")) == {"his": "ready"}
