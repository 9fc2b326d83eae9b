"""`hpcnb://CLUSTER/STREAM`: Dask's protocol over the agent's unix socket, TLS end to end.

A `distributed.comm` backend for clients. No port is opened on the notebook's host; the agent carries bytes that it
cannot read. The server's certificate must name the stream's role, so that nothing else inside the allocation can
pose as the scheduler.
"""

from __future__ import annotations

import functools
import socket
import ssl
import weakref
from typing import Any

from distributed.comm.core import Comm, Connector
from distributed.comm.registry import Backend
from distributed.comm.tcp import MAX_BUFFER_SIZE, TLS, convert_stream_closed_error
from distributed.security import Security
from tornado.iostream import IOStream, StreamClosedError

from hpcnb.agent import places

SCHEME = "hpcnb"


class ClusterSecurity(Security):
    """What a client of one cluster shows and believes.

    Parameters
    ----------
    context : ssl.SSLContext
        Of `hpcnb.agent.connection.client_context`: it checks the server's role, as Dask's own does not.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(require_encryption=True)
        self._context = context

    def get_connection_args(self, role: str) -> dict[str, Any]:
        return {"ssl_context": self._context, "require_encryption": True, "extra_conn_args": {}}


class UnixTLS(TLS):
    """Dask's TLS connection, over a unix socket."""

    def __init__(self, stream: IOStream, local_addr: str, peer_addr: str, deserialize: bool = True) -> None:
        # As TCP.__init__, without its timeouts, which a unix socket does not have.
        Comm.__init__(self, deserialize=deserialize)
        self._closed = False
        self._local_addr = local_addr
        self._peer_addr = peer_addr
        self.stream = stream
        self._extra = {}
        self._finalizer = weakref.finalize(self, self._get_finalizer())
        self._finalizer.atexit = False
        this = weakref.ref(self)
        stream.set_close_callback(functools.partial(_note_closed, this))
        self._read_extra()


def _note_closed(this: weakref.ref[UnixTLS]) -> None:
    if comm := this():
        comm._closed = True


class UnixConnector(Connector):
    """Connects to a stream of a cluster."""

    async def connect(self, address: str, deserialize: bool = True, **connection_args: Any) -> UnixTLS:
        """Connect; `address` is ``CLUSTER/STREAM``."""
        cluster, _, stream_name = address.partition("/")
        raw = IOStream(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), max_buffer_size=MAX_BUFFER_SIZE)
        try:
            await raw.connect(str(places.stream_socket(cluster, stream_name)))
            stream = await raw.start_tls(
                False, ssl_options=connection_args["ssl_context"], server_hostname=f"{stream_name}.hpcnb"
            )
        except StreamClosedError as exc:
            convert_stream_closed_error(self, exc)
            raise
        return UnixTLS(stream, f"{SCHEME}://{address}#client", f"{SCHEME}://{address}", deserialize)


class HPCBackend(Backend):
    """What `distributed` asks of an address scheme; there is nothing to listen on."""

    def get_connector(self) -> UnixConnector:
        return UnixConnector()

    def get_listener(self, loc: str, handle_comm: Any, deserialize: bool, **connection_args: Any) -> Any:
        raise TypeError(f"{SCHEME}:// addresses lead into a cluster; nothing listens on them")

    def get_address_host(self, loc: str) -> str:
        return loc.partition("/")[0]

    def resolve_address(self, loc: str) -> str:
        return loc

    def get_local_address_for(self, loc: str) -> str:
        return loc
