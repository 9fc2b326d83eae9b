"""Dask's own dashboard through the link: it opens by its link, lives, and is nobody else's."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import expect

import hpcnb as hpc
from hpcnb.agent import places
from tests.site.account import Account, until

pytestmark = pytest.mark.slow

BARS = """() => Bokeh.documents.flatMap(doc => [...doc._all_models.values()])
    .filter(model => model.type.endsWith('ColumnDataSource'))
    .map(source => [...(source.data instanceof Map ? source.data : new Map(Object.entries(source.data)))]
        .map(([name, column]) => [name, Array.from(column)]))"""
"""All that the plots of a page show."""


@pytest.fixture(scope="module")
def account(short_path):
    """One user; nothing of him runs after the module."""
    with Account(short_path()).entered() as account:
        yield account


@pytest.fixture(scope="module")
def cluster(account):
    """A cluster on this machine."""
    with hpc.Cluster("local", workers_per_node=1, cores_per_worker=1) as made:
        yield made


@pytest.fixture(scope="module")
def link(cluster):
    """The link to its dashboard."""
    cluster.wait_until_ready(60)
    return cluster.dashboard_link


def test_it_opens_and_lives(cluster, link, browser, tmp_path):
    """By one click: the page is Dask's, and its plots change with the work, by a websocket through the link."""
    page, sockets, missing = browser.new_page(), [], []
    page.on("websocket", lambda opened: sockets.append(opened.url))
    page.on("response", lambda answer: missing.append(answer.url) if answer.status >= 400 else None)
    page.goto(link)
    page.wait_for_function("() => window.Bokeh && Bokeh.documents.length > 0 && Bokeh.documents[0].roots().length > 0")
    assert [url.startswith(f"ws{link.removeprefix('http')}/ws") for url in sockets] == [True]
    before = page.evaluate(BARS)
    assert "dashed-unmistakably" not in str(before)
    with hpc.Executor(cluster) as executor:
        assert executor.submit(dashed_unmistakably, 1).result(60) == 1
        until(lambda: "dashed_unmistakably" in str(page.evaluate(BARS)))
    page.screenshot(path=tmp_path / "dashboard.png")
    page.get_by_role("link", name="Workers").click()
    expect(page).to_have_url(link.replace("status", "workers"))
    page.goto(link.replace("status", "info/main/workers.html"))
    expect(page.locator("body")).to_contain_text(str(cluster.client.scheduler_info()["workers"].popitem()[1]["name"]))
    page.close()
    # A browser asks for the icon of the host; two files of one page of Dask's are at its root, whoever serves it.
    assert [url for url in missing if "/favicon" not in url and "/statics/" not in url] == []


def dashed_unmistakably(value):
    """A task that is seen on the page."""
    return value


def test_links_of_distributed(cluster, link):
    """What distributed shows as the link is this one."""
    assert link == cluster.client.dashboard_link == cluster.client.cluster.dashboard_link
    assert link in cluster.client._repr_html_()
    assert cluster.sync(lambda: asked(cluster)) == ""  # on the loop itself nobody can wait for the answer


def test_from_a_terminal(account, cluster, link):
    """The command prints the same link, which terminals open by a click."""
    assert account.run("dashboard").out == account.run("dashboard", cluster.name).out == f"{link}\n"
    said = account.run("dashboard", "nobody")
    assert (said.status, "there is no live cluster 'nobody'" in said.err) == (1, True)


async def asked(cluster):
    """The link as seen by a program on Dask's loop."""
    return cluster.dashboard_link


def test_who_has_no_link_sees_nothing(link):
    """Without the token, under another host's name, from another site's page: 403, for pages and for websockets."""
    there = urlsplit(link)
    token = there.path.split("/")[1]
    other = token[:-1] + ("a" if token[-1] != "a" else "b")
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    wrong = [
        ("/status", {}),
        (f"/{other}/status", {}),
        ("/", {}),
        (f"/{token}x/status", {}),
        (there.path, {"Host": f"rebound.example:{there.port}"}),
        (there.path, {"Host": ""}),
        (there.path, {"Origin": "http://evil.example"}),
        (there.path, {"Origin": "null"}),
        (f"{there.path}/ws", upgrade | {"Origin": "http://evil.example"}),
        (f"{there.path}/ws", upgrade | {"Origin": f"http://127.0.0.1:{there.port + 1}"}),
        (f"/{other}/status/ws", upgrade | {"Origin": f"http://{there.netloc}"}),
    ]
    with httpx.Client(base_url=f"http://{there.netloc}", trust_env=False) as client:
        found = {(path, str(headers)): client.get(path, headers=headers).status_code for path, headers in wrong}
        assert set(found.values()) == {403}, found
        right = client.get(
            there.path, headers={"Host": f"localhost:{there.port}", "Origin": f"http://localhost:{there.port}"}
        )
        assert (right.status_code, right.headers["referrer-policy"]) == (200, "no-referrer")
        assert client.post(there.path).status_code == 405
        assert client.get(f"/{token}/").headers["location"] == there.path
        assert client.get(f"/{token}/../../etc/passwd").status_code in (403, 404)


def test_no_secret_of_the_browser_goes_on(link, cluster):
    """What the browser has for this host, cookies of other servers say, does not reach the site; nor does our path."""
    secrets = {"Cookie": "jupyter=mine", "Authorization": "token mine", "Referer": f"{link}?token=mine"}
    page = httpx.get(f"{link}?token=mine&other=his", headers=secrets, trust_env=False)
    assert page.status_code == 200
    packed = re.search(r'"token": ?"([^".]+)', page.text)[1]  # bokeh puts there what it was asked, and how
    told = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
    payload = zlib.decompress(base64.urlsafe_b64decode(told["__bk__zlib_"] + "===")).decode()
    assert "other" in payload
    assert ("mine" in payload, urlsplit(link).path.split("/")[1] in payload) == (False, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_another_user_cannot(link, cluster):
    """Another user of the machine reaches the port, and sees nothing; the sockets on both sides are not his to open."""
    there = urlsplit(link)
    listening = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "dashboard" in line}
    sockets = [path for path in listening if Path(path).exists()]
    assert str(places.stream_socket(cluster.handle.id, "dashboard")) in sockets
    assert len(sockets) >= 2
    assert {Path(path).stat().st_mode & 0o777 for path in sockets} == {0o600}
    code = f"""
import encodings.idna, os, socket, urllib.error, urllib.request
os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open("http://{there.netloc}/status")
except urllib.error.HTTPError as error:
    print(error.code)
for path in {sockets!r}:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("open")
    except PermissionError:
        print("closed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["403"] + ["closed"] * len(sockets), done.stderr


def test_before_and_after(account):
    """Before there is a scheduler the page says what is waited for, and loads itself again; in the end the link is dead."""
    account.sites(local={}, slow={"batch": "process", "setup": ["if [ -d claim ]; then sleep 600; fi"]})
    cluster = hpc.Cluster("slow", name="slow")
    link = cluster.dashboard_link
    early = httpx.get(link, trust_env=False)
    assert (early.status_code, early.headers["refresh"]) == (503, "5")
    assert "There is no dashboard yet" in early.text
    cluster.close()
    assert cluster.dashboard_link == ""
    assert httpx.get(link, trust_env=False).status_code == 403
