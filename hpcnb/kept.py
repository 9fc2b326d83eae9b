"""A notebook's Dask client: its futures are held under the notebook's name, and come back to the next kernel."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import re
import sys
import uuid
import weakref
from collections import deque
from pathlib import Path
from typing import Any

import dask
from dask.utils import key_split
from distributed import Client, Future

from hpcnb.errors import Unreachable
from hpcnb.pilot.keeper import TAG, client_name

__all__ = ["NotebookClient", "notebook_name"]

ENDED = ("memory", "erred")
PATIENCE = 30.0
"""Seconds that the scheduler has to answer."""
FAREWELL = 1.0
"""Seconds that the end of Python is held up for it."""
PAUSE = 1.0
"""Seconds between two attempts to reach the scheduler again."""


def notebook_name() -> str:
    """The name under which this notebook is known: the same in each of its kernels.

    It is the notebook's path where the front end tells it (Jupyter's servers and VS Code do), else the directory in which
    the kernel started, else the script's path. There is no host in it: a cluster can be reached only from where its
    agent has its records, and a pod on a JupyterHub is called otherwise each day.
    """
    shell = _shell()
    space = shell.user_ns if shell is not None else {}
    told = os.environ.get("JPY_SESSION_NAME") or space.get("__vsc_ipynb_file__")
    if told:
        # VS Code adds a mark of its own, another one each time.
        return re.sub(r"-jvsc-[0-9a-f-]+(?=\.ipynb$|$)", "", str(told))
    if history := space.get("_dh"):
        return str(history[0])
    script = getattr(sys.modules["__main__"], "__file__", None)
    return str(Path(script).resolve()) if script else str(Path.cwd())


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


class NotebookClient(Client):
    """A Dask client whose end is not the end of its futures.

    Parameters
    ----------
    cluster : Cluster
    """

    def __init__(self, cluster: Any) -> None:
        self.notebook = notebook_name()
        self._tags: dict[Any, str] = {}
        self._back: dict[Any, Future[Any]] = {}
        self._questions: deque[tuple[asyncio.Future[dict[str, Any]], dict[str, Any]]] = deque()
        # Everything goes through the scheduler: a worker's address means nothing on this machine.
        super().__init__(cluster, name=client_name(self.notebook), direct_to_workers=False, set_as_default=False)
        self._stream_handlers["hpcnb-kept"] = self._answered
        atexit.register(_leave, weakref.ref(self))

    def tagged(self, tag: str) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which what is submitted bears a tag."""
        marked: Any = dask
        return marked.annotate(**{TAG: tag}) if tag else contextlib.nullcontext()

    def label(self, future: Future[Any], tag: str) -> Future[Any]:
        """Write the function's name and the tag on a future."""
        labelled: Any = future
        labelled.name, labelled.tag = key_split(future.key), tag
        if tag and future.key in self.futures:
            self._tags[future.key] = tag
        return future

    def kept(self, adopt: str = "") -> dict[str, Any]:
        """What is held for this notebook (see `hpcnb.pilot.keeper.Keeper.kept`), with what is held for one that is away."""
        answer: dict[str, Any] = self.sync(self._kept, adopt)
        return answer

    def all_futures(self) -> list[Future[Any]]:
        """This notebook's futures in order of submission, those of its earlier kernels among them.

        The latter stay until they are released by ``future.release()``: nothing else in this kernel refers to them.
        """
        found: list[Future[Any]] = self.sync(self._all_futures)
        return found

    async def _kept(self, adopt: str = "") -> dict[str, Any]:
        await asyncio.sleep(0)  # what was dropped before is said before
        self._questions.append((asyncio.get_running_loop().create_future(), {"op": "hpcnb-kept", "adopt": adopt}))
        asked, question = self._questions[-1]
        self._send_to_scheduler(question)
        try:
            return await asyncio.wait_for(asked, PATIENCE)
        except TimeoutError:
            raise Unreachable(
                f"the scheduler has not answered for {PATIENCE:.0f} s",
                remedy="`%hpc` shows whether the cluster still runs.",
            ) from None

    def _answered(self, answer: dict[str, Any]) -> None:
        asked, _ = self._questions.popleft()
        if not asked.done():
            asked.set_result(answer)

    async def _all_futures(self) -> list[Future[Any]]:
        held = (await self._kept())["futures"]
        tags = {key: tag for key, _, tag, _, _ in held}
        new = {key: state for key, _, _, _, state in held if key not in self.futures}
        # What was submitted just now may not have reached the keeper.
        found = [self._back.get(key) or Future(key, self) for key in dict.fromkeys([*tags, *self.futures])]
        self._back.update({future.key: future for future in found if future.key in new})
        if new:
            self._send_to_scheduler({"op": "client-desires-keys", "keys": list(new)})
        for future in found:
            if new.get(future.key) in ENDED:
                state: Any = future._state
                await state.wait()
        return [self.label(future, tags.get(future.key) or self._tags.get(future.key, "")) for future in found]

    def _release_key(self, key: Any) -> None:
        self._tags.pop(key, None)
        self._back.pop(key, None)
        # IPython clears its variables when it ends: that drops nothing, for the user did not.
        if not getattr(_shell(), "_atexit_once_called", False):
            super()._release_key(key)

    async def _reconnect(self) -> None:
        """Come back to the scheduler as a new client of the same notebook, with all futures: the keeper has them.

        Dask's own way is to cancel all of them, for to it the end of a connection is the end of a client.
        """
        keys, asked = list(self.futures), [question for _, question in self._questions]
        lost: Any = self.scheduler_comm
        self.status, self.scheduler_comm = "connecting", None
        # The scheduler may hear of the old connection's end after the new one's beginning, and would drop the new one.
        self.id = f"{self.id[:-36]}{uuid.uuid1()}"
        while self.status == "connecting":  # until the cluster ends, which closes this client
            try:
                await self._ensure_connected(timeout=PATIENCE)
            except OSError:
                await asyncio.sleep(PAUSE)
        if self.status == "running":
            found: Any = self.scheduler_comm
            found.interval = lost.interval
            self._send_to_scheduler({"op": "client-desires-keys", "keys": keys})
            for question in asked:
                self._send_to_scheduler(question)

    async def farewell(self) -> None:
        """Say that this client leaves, behind all that it has said, and say nothing more."""
        await asyncio.sleep(0)  # what was dropped is said in two steps
        await asyncio.sleep(0)
        for periodic in self._periodic_callbacks.values():
            periodic.stop()
        self.status = "closed"
        if (comm := self.scheduler_comm) is not None:
            with contextlib.suppress(OSError):
                comm.send({"op": "close-client"})
                await comm.close()


def _leave(known: weakref.ref[NotebookClient]) -> None:
    """Have a client leave before Python drops its futures one by one."""
    client = known()
    if client is None or client.status != "running":
        return
    loop: Any = client.loop
    if loop.asyncio_loop.is_running():
        with contextlib.suppress(TimeoutError):  # then it is dropped without a word, which is as good
            asyncio.run_coroutine_threadsafe(client.farewell(), loop.asyncio_loop).result(FAREWELL)
