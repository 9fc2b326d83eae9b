"""Fixtures of the tests of the Jupyter server's extension: a server, and requests to it."""

from __future__ import annotations

import httpx
import pytest

from tests.server.jupyter import Jupyter

BASE = "/user/x/"


@pytest.fixture(scope="module")
def jupyter(short_path):
    """A Jupyter server below a base URL, as a hub has them."""
    with Jupyter(short_path(), options=[f"--ServerApp.base_url={BASE}"]) as running:
        yield running


@pytest.fixture(scope="module")
def api(jupyter):
    """Requests with the server's token, below the interface's path."""
    headers = {"Authorization": f"token {jupyter.token}"}
    with httpx.Client(base_url=f"{jupyter.url}hpcnb/api/", headers=headers, timeout=60) as client:
        yield client
