"""dask-labextension beside hpcnb: our `Cluster` as its factory, by its own routes on a real server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from urllib.parse import quote

import httpx
import pytest
import yaml

from tests.server.jupyter import Jupyter
from tests.site.account import until

pytestmark = pytest.mark.slow

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
DOCUMENTED = yaml.safe_load(re.search(r"^labextension:\n(?:  .*\n)+", README, re.MULTILINE)[0])["labextension"][
    "factory"
]
WISHES = {"workers-per-node": 1, "cores-per-worker": 1, "memory-per-worker": "1GiB"}
CONFIGURATION = {
    "labextension": {"factory": DOCUMENTED | {"args": ["local"], "kwargs": WISHES}},
    "distributed": {"adaptive": {"interval": "100ms", "wait-count": 1}},
}


class Configured(Jupyter):
    def start(self):
        (self.folder / "config" / "labextension.yaml").write_text(json.dumps(CONFIGURATION))
        super().start()


@pytest.fixture(scope="module")
def jupyter(short_path):
    """A server on which dask-labextension makes clusters of ours."""
    with Configured(short_path(), beside=["dask-labextension"]) as running:
        yield running


@pytest.fixture
def dask(jupyter, api):
    """Requests to its routes."""
    with httpx.Client(base_url=f"{jupyter.url}dask/", headers=api.headers, timeout=60) as client:
        yield client


@contextlib.contextmanager
def notebook(jupyter):
    """Another program that uses the one cluster there is: of its workers the scheduler tells whoever came last."""
    code = "import hpcnb; [it] = hpcnb.clusters(); it.wait_until_ready(60); print('there', flush=True); input()"
    environ = os.environ | jupyter.environ
    with subprocess.Popen([sys.executable, "-c", code], env=environ, stdin=PIPE, stdout=PIPE, text=True) as running:
        assert running.stdout.readline() == "there\n"
        yield
        running.communicate("\n")


def test_our_cluster_is_its_factory(jupyter, api, dask):
    """Made, shown with what it has, scaled, adapted, ended by its routes; and the same cluster as everywhere else."""
    made = dask.put("clusters/").raise_for_status().json()
    here = f"clusters/{made['id']}"
    assert [made[key] for key in ("workers", "cores", "memory")] == [1, 1, "1.00 GiB"]
    assert dask.get("clusters/").json() == [dask.get(here).json()] == [made]
    (mine,) = api.get("clusters").json()["clusters"]
    assert made["scheduler_address"] == f"hpcnb://{mine['id']}/scheduler"

    link = made["dashboard_link"]
    assert httpx.get(link).status_code == 200
    assert "/proxy" in link, "its page would drop the path"
    plots = dask.get(f"dashboard-check/{quote(link, safe='')}").json()
    assert (plots["isActive"], plots["plots"]["Individual Task Stream"]) == (True, "/individual-task-stream")

    with notebook(jupyter):
        dask.patch(here, json={"workers": 2}).raise_for_status()
        until(lambda: dask.get(here).json()["cores"] == 2)
        adapted = dask.patch(here, json={"adapt": {"minimum": 1, "maximum": 2}}).raise_for_status().json()
        assert adapted["adapt"] == {"minimum": 1, "maximum": 2}
        until(lambda: dask.get(here).json()["workers"] == 1)  # there is no work

    assert dask.delete(here).status_code == 204
    assert dask.get("clusters/").json() == []
    assert api.get(f"clusters/{mine['id']}").json()["state"] == "ended"
