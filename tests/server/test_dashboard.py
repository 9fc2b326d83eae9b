"""Dask's dashboard below the Jupyter server's base URL: behind its token, with its websockets."""

from __future__ import annotations

import asyncio
import json
import re

import httpx
import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from hpcnb.handle import Handle
from hpcnb.model import ClusterSpec, ClusterStatus, Resources, State
from tests.server.conftest import BASE
from tests.site.account import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(jupyter, api):
    """The address of a cluster's dashboard, once it is ready."""
    wishes = {"workers_per_node": 1, "cores_per_worker": 1}
    id = api.post("clusters", json={"site": "local", "wishes": wishes}).json()["id"]
    until(lambda: api.get(f"clusters/{id}").json()["state"] == "ready")
    yield f"{jupyter.url}proxy/hpcnb/{id}/status"
    api.delete(f"clusters/{id}").raise_for_status()


def test_behind_the_token(api, page):
    """With the server's token the page is Dask's, and its links stay below it; without there is nothing."""
    stranger = httpx.get(page)
    assert (stranger.status_code, "login" in stranger.headers["location"]) == (302, True)
    assert httpx.head(page, headers=dict(api.headers)).status_code == 405
    shown = api.get(page)
    assert (shown.status_code, "Bokeh" in shown.text) == (200, True)
    assert "content-security-policy" in shown.headers
    script = re.search(r'src="(static/js/bokeh[^"]*)"', shown.text)[1]
    assert api.get(page.replace("status", script)).status_code == 200
    home = api.get(page.removesuffix("status"))
    assert (home.status_code, home.headers["location"]) == (301, httpx.URL(page).path)


async def test_its_websocket(jupyter, page):
    """The page's websocket goes through, for whoever has the token and comes from here."""
    token = {"Authorization": f"token {jupyter.token}"}
    async with httpx.AsyncClient(headers=token, timeout=60) as client:
        shown = await client.get(page)
    offered = ["bokeh", re.search(r'"token": ?"([^"]+)"', shown.text)[1]]
    address = page.replace("http", "ws", 1) + "/ws"
    host = jupyter.url.partition("/user")[0]
    opened = await websocket_connect(HTTPRequest(address, headers=token | {"Origin": host}), subprotocols=offered)
    async with asyncio.timeout(60):
        assert json.loads(await opened.read_message())["msgtype"] == "ACK"
    opened.close()
    async with asyncio.timeout(60):
        while await opened.read_message() is not None:
            pass
    async with httpx.AsyncClient() as browser:  # the token alone says that it is no page of somebody else
        said = await browser.get(f"{jupyter.url}api/status", params={"token": jupyter.token})
    cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in said.cookies.items())}
    for headers in ({}, cookies | {"Origin": "http://evil.example"}):
        with pytest.raises(HTTPClientError) as refused:
            await websocket_connect(HTTPRequest(address, headers=headers), subprotocols=offered)
        assert refused.value.code in (302, 403)


def test_no_such_dashboard(jupyter, api):
    """A cluster that is not there has none, and no other path leads anywhere."""
    assert api.get(f"{jupyter.url}proxy/hpcnb/{'0' * 16}/status").status_code == 503
    assert api.get(f"{jupyter.url}proxy/hpcnb/..%2f..%2fagent/status").status_code == 404


async def test_the_link_in_a_hub(monkeypatch):
    """In a hub's pod the link is a path of its Jupyter server."""
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", BASE)
    spec = ClusterSpec(site="local", name="x", resources=Resources())
    handle = Handle(ClusterStatus(id="0" * 16, spec=spec, state=State.READY))
    assert await handle.dashboard() == f"{BASE}proxy/hpcnb/{'0' * 16}/status"
