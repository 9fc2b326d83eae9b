"""Dask's dashboard at a unix socket of the scheduler's: made when it is asked for, and honest where it cannot be."""

from __future__ import annotations

import asyncio
import socket
import stat
import sys

import pytest
from distributed import Scheduler
from tornado import netutil, simple_httpclient

from hpcnb.pilot.scheduler.dashboard import Dashboard


@pytest.fixture
async def scheduler():
    """A scheduler as the pilot starts it: without a dashboard."""
    async with Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0") as scheduler:
        scheduler.http_server.stop()
        yield scheduler


class Here(netutil.Resolver):
    """Every name leads to one socket."""

    def initialize(self, path):
        """Which."""
        self.path = path

    async def resolve(self, host, port, family=socket.AF_UNSPEC):
        """There."""
        return [(socket.AF_UNIX, str(self.path))]


@pytest.fixture
async def get(scheduler, tmp_path):
    """Ask for a page."""
    path = tmp_path / "dashboard"
    dashboard = Dashboard(scheduler)
    dashboard.listen(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    async def get(page):
        client = simple_httpclient.SimpleAsyncHTTPClient(force_instance=True, resolver=Here(path=path))
        try:
            return await client.fetch(f"http://localhost{page}", raise_error=False)
        finally:
            client.close()

    yield get
    await dashboard.close()


async def test_without_bokeh(get, monkeypatch):
    """Where bokeh is missing, the page says so, and how to get it; once it is there, the same page works."""
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "distributed.dashboard.scheduler", None)
        first, second = await asyncio.gather(get("/status"), get("/workers"))
        assert (first.code, second.code) == (501, 501)
        assert f"{sys.executable} -m pip install &#x27;bokeh" in first.body.decode()
    found = await asyncio.gather(*map(get, ("/status", "/workers", "/individual-plots.json", "/health")))
    assert [page.code for page in found] == [200] * 4
    assert b"individual-task-stream" in found[2].body
    assert (await get("/")).effective_url.endswith("/status")


async def test_nothing_leads_elsewhere(get):
    """Dask's own proxy to other hosts is not among the pages."""
    assert (await get("/proxy/8080/localhost/")).code == 404
