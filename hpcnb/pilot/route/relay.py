"""A relay: carries one pipe between its own stdin and stdout and a TCP connection, for routes that need a foot at the site.

``connect HOST PORT`` connects to the gateway. ``listen FOLDER GATEWAY`` is the other way round: it leaves word in a folder where
the pilot looks, and the first who comes with the token that is written there is the one. Any user of the machine may
connect; who has no token is let go and holds nobody up. What is carried is encrypted end to end, and no concern of a relay.

Standard library only, but for how its word is written, and little of it, since each start of it is waited for. It ends with its stdin.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import threading
from contextlib import suppress
from hmac import compare_digest
from pathlib import Path

from hpcnb.pilot.written import write_whole

SAYS = b"hpcnb-relay: "
"""Begins the one line that a relay writes before it carries; what a login shell prints comes earlier."""
CONNECTED = "connected"
"""The rest of that line, when all is well; otherwise it says what is not."""

TOKEN_SIZE = 32
_PIECE = 1 << 18
_PATIENCE = 5.0
_MOST = 128
"""How many may be at the door without having shown their token."""
_STDIN, _STDOUT = 0, 1


def main(arguments: list[str]) -> int:
    """Make the connection, say so, carry."""
    how, *where = arguments
    try:
        peer = {"connect": connect, "listen": listen}[how](*where)
    except OSError as error:
        _say(f"{how} {' '.join(where)}: {error}")
        return 1
    _say(CONNECTED)
    carry(peer)
    return 0


def connect(host: str, port: str) -> socket.socket:
    """Connect to a gateway."""
    return socket.create_connection((host, int(port)), _PATIENCE)


def listen(folder: str, gateway: str) -> socket.socket:
    """Leave word in a folder, and wait for the pilot to come."""
    here = _facing(gateway)
    # Where the pilot is on this very machine, nobody else need see the port.
    with socket.create_server(("127.0.0.1" if here.startswith("127.") else "", 0), backlog=_MOST) as server:
        token = os.urandom(TOKEN_SIZE)
        word = {"hosts": [here, socket.gethostname()], "port": server.getsockname()[1], "token": token.hex()}
        path = Path(folder, f"{os.urandom(8).hex()}.json")
        try:
            write_whole(path, json.dumps(word).encode())
            return _Door(server, token).wait()
        finally:
            path.unlink(missing_ok=True)


def _facing(gateway: str) -> str:
    """The address of this machine on the way to another: nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((gateway, 9))
        return str(probe.getsockname()[0])


class _Door:
    """Lets in who shows the token."""

    def __init__(self, server: socket.socket, token: bytes) -> None:
        self._server = server
        self._token = token
        self._shown: dict[socket.socket, bytes] = {}

    def wait(self) -> socket.socket:
        """The one who came with the token."""
        self._server.setblocking(False)
        with selectors.DefaultSelector() as self._ready:
            self._ready.register(self._server, selectors.EVENT_READ)
            self._ready.register(_STDIN, selectors.EVENT_READ)
            try:
                while True:
                    for key, _ in self._ready.select():
                        if key.fileobj == _STDIN:  # nothing is sent before the one line: it has ended
                            raise ConnectionAbortedError("nobody waits for the pilot any more")
                        if key.fileobj is self._server:
                            self._greet()
                        elif key.fileobj in self._shown and (peer := self._look(key.fileobj)):
                            return peer
            finally:
                for stranger in list(self._shown):
                    self._send_away(stranger)

    def _greet(self) -> None:
        with suppress(OSError):  # gone again
            peer, _ = self._server.accept()
            peer.setblocking(False)
            self._shown[peer] = b""
            self._ready.register(peer, selectors.EVENT_READ)
        if len(self._shown) > _MOST:
            # The pilot shows its token at once; who has been here longest is the least likely to be the pilot.
            self._send_away(next(iter(self._shown)))

    def _look(self, peer: socket.socket) -> socket.socket | None:
        try:
            piece = peer.recv(TOKEN_SIZE - len(self._shown[peer]))
        except OSError:
            piece = b""
        self._shown[peer] += piece
        whole = len(self._shown[peer]) == TOKEN_SIZE
        if whole and compare_digest(self._shown[peer], self._token):
            self._ready.unregister(peer)
            del self._shown[peer]
            return peer
        if whole or not piece:
            self._send_away(peer)
        return None

    def _send_away(self, peer: socket.socket) -> None:
        self._ready.unregister(peer)
        del self._shown[peer]
        peer.close()


def carry(peer: socket.socket) -> None:
    """Carry bytes both ways until either side ends."""
    peer.settimeout(None)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    threading.Thread(target=_send, args=(peer,), daemon=True).start()
    with suppress(OSError):
        while data := memoryview(peer.recv(_PIECE)):
            while data:
                data = data[os.write(_STDOUT, data) :]


def _send(peer: socket.socket) -> None:
    with suppress(OSError):
        while data := os.read(_STDIN, _PIECE):
            peer.sendall(data)
    os._exit(0)  # whoever has closed our stdin reads our stdout no more either


def _say(text: str) -> None:
    # On a line of its own, whatever a login shell has left on the last one.
    os.write(_STDOUT, b"\n" + SAYS + text.replace("\n", " ").encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
