"""Requests and answers over Dask's connections: the one module that knows `distributed.core`'s server and rpc."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from distributed.comm.core import CommClosedError
from distributed.core import Server, rpc
from distributed.protocol.serialize import Serialized

from hpcnb.errors import HPCError, Unreachable, error_from_json

__all__ = ["Peer", "frames_of", "in_frames", "serve"]

log = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[dict[str, Any]]]
Frame = bytes | bytearray | memoryview


async def serve(handlers: Mapping[str, Handler], address: str, listen_args: Mapping[str, Any]) -> Server:
    """Listen at an address (``tls://127.0.0.1:0``) and answer requests; the caller closes the server.

    Parameters
    ----------
    handlers : mapping of str to coroutine function
        By the request's name; the request's fields are keyword arguments. An `HPCError` reaches the caller as itself.
    address : str
    listen_args : mapping
        Of `distributed.Security.get_listen_args`.
    """
    # What travels here is for the kernels and the notebook: this process unpickles none of it.
    answers = {name: _answering(handler) for name, handler in handlers.items()}
    server = Server(answers, deserialize=False, needs_workdir=False)
    await server
    await server.listen(address, **listen_args)
    return server


def _answering(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def answer(**request: Any) -> dict[str, Any]:
        try:
            return await handler(**request)
        except HPCError as error:
            return {"error": error.to_json()}
        except Exception as error:  # a fault of ours; the server goes on, and who asked is told
            log.exception("while serving %s", handler.__name__)
            return {"error": HPCError(f"the session host failed: {type(error).__name__}: {error}").to_json()}

    return answer


def in_frames(frames: Sequence[Frame]) -> Any:
    """Wrap frames of any size so that they travel without copies."""
    return Serialized({}, list(frames))


def frames_of(value: Any) -> list[Frame]:
    """Return the frames that `in_frames` wrapped at the other end."""
    return list(value.frames) if isinstance(value, Serialized) else []


class Peer:
    """The other end: a server that `serve` made.

    Parameters
    ----------
    address : str
    connection_args : mapping
        Of `distributed.Security.get_connection_args`.
    """

    def __init__(self, address: str, connection_args: Mapping[str, Any]) -> None:
        self._rpc = rpc(address, deserialize=False, connection_args=dict(connection_args))

    async def call(self, name: str, **request: Any) -> dict[str, Any]:
        """Send one request and return its answer.

        Raises
        ------
        Unreachable
            The connection could not be made or was cut; whether the request was served is not known.
        HPCError
            The other end's own.
        """
        try:
            answer = await getattr(self._rpc, name)(**request)
        except (CommClosedError, OSError, TimeoutError) as error:
            raise Unreachable(
                f"the session host does not answer: {error}", remedy="`%hpc` shows whether the cluster still runs."
            ) from error
        if refusal := answer.get("error"):
            raise error_from_json(refusal)
        found: dict[str, Any] = answer
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self._rpc.close_rpc()
