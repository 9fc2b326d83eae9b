"""Fixtures of the tests of the Jupyter server's extension: a server, and requests to it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import httpx
import pytest

from tests.server.jupyter import Jupyter

BASE = "/user/x/"


@pytest.fixture(scope="module")
def jupyter():
    """A Jupyter server below a base URL, as a hub has them."""
    folder = Path(tempfile.mkdtemp(prefix="hpcnb-", dir="/tmp"))
    try:
        with Jupyter(folder, options=[f"--ServerApp.base_url={BASE}"]) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def api(jupyter):
    """Requests with the server's token, below the interface's path."""
    headers = {"Authorization": f"token {jupyter.token}"}
    with httpx.Client(base_url=f"{jupyter.url}hpcnb/api/", headers=headers, timeout=60) as client:
        yield client
