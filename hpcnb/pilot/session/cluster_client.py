"""The cluster's client as the default client of a session, started when something first asks for one."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hpcnb.errors import NotReady

PATIENCE = 30.0
"""Seconds that the first use waits for the scheduler."""
MODULE = "distributed.client"


def install(run_dir: str) -> None:
    """Arrange that whoever asks dask for the default client gets the cluster's.

    Nothing is imported or connected before. An import in the background would be in the way of the user's own imports
    (two threads that import one package at a time can see it half made), and most cells do not need dask at all.

    Parameters
    ----------
    run_dir : str
        With ``run.json``, the scheduler file and ``tls``.
    """
    starter = _Starter(Path(run_dir))
    if MODULE in sys.modules:
        starter.take_over(sys.modules[MODULE])
    else:
        sys.meta_path.insert(0, _AfterImport(MODULE, starter.take_over))


class _Starter:
    """Starts the client once, in the thread that asks first; the others wait for it."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._lock = threading.RLock()
        self._starting = False
        self._latest: Callable[[], Any] = lambda: None

    def take_over(self, module: ModuleType) -> None:
        """Look up the default client through us."""
        import dask

        self._latest = module._get_global_client  # noqa: SLF001 - the one place through which all of dask asks
        module._get_global_client = self._default_client  # type: ignore[attr-defined]  # noqa: SLF001
        tls = self._run_dir / "tls"
        dask.config.set(
            {
                "distributed.comm.require-encryption": True,
                "distributed.comm.tls.ca-file": str(tls / "ca.pem"),
                "distributed.comm.tls.client.cert": str(tls / "client.pem"),
                "distributed.comm.tls.client.key": str(tls / "client.key"),
            }
        )

    def _default_client(self) -> Any:
        with self._lock:
            # A client that starts asks for the default client too.
            if not self._starting and self._latest() is None:
                self._starting = True
                try:
                    self._start()
                finally:
                    self._starting = False
        return self._latest()

    def _start(self) -> None:
        from distributed import Client

        try:
            Client(self._address(), timeout=PATIENCE, set_as_default=True)
        except OSError as error:
            raise NotReady(
                f"the cluster's scheduler does not answer this session: {error}",
                remedy="`%hpc` shows the cluster's state, `%hpc logs scheduler` what the scheduler last said.",
            ) from error

    def _address(self) -> str:
        run = json.loads((self._run_dir / "run.json").read_text())
        path = Path(run.get("scheduler_file") or self._run_dir / "scheduler.json")
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return str(json.loads(path.read_text())["address"])
            except (FileNotFoundError, json.JSONDecodeError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)  # a file on a shared file system announces itself to nobody


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls `then` with a module when it has been imported."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            run, then = spec.loader.exec_module, self._then

            def exec_module(module: ModuleType) -> None:
                run(module)
                then(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
