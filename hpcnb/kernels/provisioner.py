"""Jupyter's way to a kernel that is no process of this machine (`jupyter_client.kernel_provisioners`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Dict, Unicode

from hpcnb.agent.loop import background

if TYPE_CHECKING:
    from hpcnb.kernels.allocated import Allocated
    from hpcnb.site.shell import Prompt

__all__ = ["Provisioner"]


class Provisioner(KernelProvisionerBase):
    """Runs a kernel in an allocation of its own; `hpcnb kernel install` writes the kernelspecs that name it.

    Parameters
    ----------
    site : str
    wishes : dict
        What the cluster is asked for: the keywords of `hpcnb.Cluster`.
    """

    site = Unicode("")
    wishes = Dict()
    _kernel: Allocated | None = None

    @property
    def _manager(self) -> Any:
        return self.parent

    @property
    def has_process(self) -> bool:
        return self._kernel is not None

    async def poll(self) -> int | None:
        return self._kernel.code if self._kernel else 0

    async def wait(self) -> int | None:
        if self._kernel is None:
            return 0
        await _there(self._kernel.exited.wait())
        return self._kernel.code

    async def send_signal(self, signum: int) -> None:
        """Nothing: the kernelspec asks for interrupts by message, and other signals mean nothing elsewhere."""

    async def kill(self, restart: bool = False) -> None:
        if self._kernel is not None:
            await _there(self._kernel.kill())

    async def terminate(self, restart: bool = False) -> None:
        await self.kill(restart)

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        return await super().pre_launch(cmd=[], **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        self._ask_on_pages()
        if self._kernel is None:
            self._kernel = await _there(_made(self.site, self.wishes, self._manager.session.key))
        title = Path(kwargs["env"].get("JPY_SESSION_NAME") or "kernel").stem
        try:
            self.connection_info = await _there(
                self._kernel.launch(title=title, directory=kwargs.get("cwd") or os.getcwd())
            )
        except BaseException:
            kernel, self._kernel = self._kernel, None
            await _there(kernel.close())
            raise
        return self.connection_info

    async def cleanup(self, restart: bool = False) -> None:
        if self._kernel is not None and not restart:
            kernel, self._kernel = self._kernel, None
            await _there(kernel.close())

    def _ask_on_pages(self) -> None:
        """Within a Jupyter server, put what a login node asks to its open pages."""
        from hpcnb.handle import ask_with

        above = self._manager
        while above is not None and not hasattr(above, "web_app"):
            above = above.parent
        panels = above and above.web_app.settings.get("hpcnb_panels")
        if panels is not None:
            server = asyncio.get_running_loop()

            async def ask(prompt: Prompt) -> str:
                return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(panels.ask(prompt), server))

            ask_with(ask)


async def _made(*arguments: Any) -> Allocated:
    from hpcnb.kernels.allocated import Allocated  # with distributed, which a Jupyter server does without

    return Allocated(*arguments)


async def _there(work: Coroutine[Any, Any, Any]) -> Any:
    """Await something that belongs to the background loop: Jupyter's own may stand still between two calls."""
    return await asyncio.wrap_future(background().start(work))
