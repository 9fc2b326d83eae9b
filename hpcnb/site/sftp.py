"""SFTP, the part of version 3 that files need: many requests in flight, from many threads."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import struct
import threading
from collections import deque
from concurrent.futures import Future

import paramiko

from hpcnb.site.ssh_transport import PIECE

READ, WRITE, CREATE, EXCLUSIVE = 0x01, 0x02, 0x08, 0x20
"""The flags of `Sftp.open`."""

_VERSION = 3
_INIT, _OPEN, _CLOSE, _READ, _WRITE, _FSTAT, _FSETSTAT = 1, 3, 4, 5, 6, 8, 10
_OPENDIR, _READDIR = 11, 12
_REMOVE, _MKDIR, _STAT, _EXTENDED = 13, 14, 17, 200
_HELLO, _STATUS, _NAME = 2, 101, 104
_OK, _EOF = 0, 1
_ERRNO = {
    2: errno.ENOENT,
    3: errno.EACCES,
    4: errno.EIO,  # "something else": EEXIST, EISDIR, ENOSPC, EDQUOT … the protocol says no more
    5: errno.EINVAL,
    6: errno.ECONNRESET,
    7: errno.ECONNRESET,
    8: errno.EOPNOTSUPP,
}
_SIZE, _OWNER, _MODE, _TIMES, _MORE = 1, 2, 4, 8, 1 << 31
_ATTRIBUTES = {_SIZE: 8, _OWNER: 8, _MODE: 4, _TIMES: 8}
_BLOCK = 32768  # what every server takes
_IN_FLIGHT = 64
_LARGEST = 1 << 18  # bytes of an answer


class Sftp:
    """One SFTP session. Its methods block; a request that fails is an `OSError`, a lost session an `EOFError`.

    Parameters
    ----------
    channel : paramiko.Channel
        With the subsystem started.
    """

    def __init__(self, channel: paramiko.Channel) -> None:
        self.channel = channel
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._lost = False
        self._users = 0
        self._pending: dict[int, Future[bytes]] = {}
        self._numbers = itertools.count(1)
        self._buffer = bytearray()
        self._send(struct.pack(">BI", _INIT, _VERSION))
        hello = self._receive()
        if hello[:1] != bytes([_HELLO]):
            raise EOFError(f"no SFTP: {hello[:80]!r}")
        self.extensions = set(_strings(hello[5:])[::2])
        threading.Thread(target=self._dispatch, name="sftp", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Requests will be answered, as far as we know."""
        return not (self._lost or self.channel.closed)

    @property
    def idle(self) -> bool:
        """Nobody uses the session."""
        return self._users == 0

    def enter(self) -> None:
        """Use the session, between requests too, until `leave`."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """Use it no longer."""
        with self._lock:
            self._users -= 1

    def open(self, path: str, flags: int, mode: int = 0) -> bytes:
        """Open a file; one that is created gets its mode at once."""
        attributes = struct.pack(">II", _MODE, mode) if flags & CREATE else bytes(4)
        return _strings(self._ask(_OPEN, _string(path), struct.pack(">I", flags), attributes))[0]

    def close(self, handle: bytes) -> None:
        self._ask(_CLOSE, _string(handle))

    def chmod(self, handle: bytes, mode: int) -> None:
        self._ask(_FSETSTAT, _string(handle), struct.pack(">II", _MODE, mode))

    def size(self, handle: bytes) -> int:
        """The size of an open file; 0 where the server does not say."""
        (flags,) = struct.unpack_from(">I", answer := self._ask(_FSTAT, _string(handle)))
        (size,) = struct.unpack_from(">Q", answer, 4) if flags & _SIZE else (0,)
        return int(size)

    def is_directory(self, path: str) -> bool:
        (flags,) = struct.unpack_from(">I", answer := self._ask(_STAT, _string(path)))
        at = 4 + 8 * bool(flags & _SIZE) + 8 * bool(flags & _OWNER)
        (mode,) = struct.unpack_from(">I", answer, at) if flags & _MODE else (0,)
        return stat.S_ISDIR(int(mode))

    def mkdir(self, path: str, mode: int) -> None:
        self._ask(_MKDIR, _string(path), struct.pack(">II", _MODE, mode))

    def remove(self, path: str) -> None:
        self._ask(_REMOVE, _string(path))

    def names(self, path: str) -> list[str]:
        """The names in a directory, in order."""
        handle = _strings(self._ask(_OPENDIR, _string(path)))[0]
        found: set[str] = set()
        try:
            while (answer := self._request(_READDIR, _string(handle)).result())[0] == _NAME:
                found.update(_names(answer))
            if struct.unpack_from(">I", answer, 1)[0] != _EOF:
                _checked(answer)
        finally:
            self.close(handle)
        return sorted(found - {".", ".."})

    def replace(self, old: str, new: str) -> None:
        """Rename over whatever is there."""
        self._ask(_EXTENDED, _string("posix-rename@openssh.com"), _string(old), _string(new))

    def sync(self, handle: bytes) -> None:
        """Have the data on the disk, where the server knows how."""
        if b"fsync@openssh.com" in self.extensions:
            self._ask(_EXTENDED, _string("fsync@openssh.com"), _string(handle))

    def is_full(self, path: str) -> bool:
        """Whether the file system has no space or no file left for us, as far as the server tells."""
        if b"statvfs@openssh.com" not in self.extensions:
            return False
        answer = self._ask(_EXTENDED, _string("statvfs@openssh.com"), _string(path))
        _, _, _, _, blocks, files, _, file_slots, *_ = struct.unpack_from(">11Q", answer)
        return int(blocks) == 0 or (int(files) > 0 and int(file_slots) == 0)

    def read(self, handle: bytes, offset: int, size: int) -> bytes:
        """Read at most so many bytes, many requests ahead."""
        found = bytearray()
        asked: deque[tuple[int, Future[bytes]]] = deque()
        at, end = offset, offset + size
        while asked or at < end:
            while at < end and len(asked) < _IN_FLIGHT:
                asked.append((count := min(_BLOCK, end - at), self._read(handle, at, count)))
                at += count
            wanted, future = asked.popleft()
            piece = _data(future)
            while 0 < len(piece) < wanted:
                more = _data(self._read(handle, offset + len(found) + len(piece), wanted - len(piece)))
                if not more:
                    break
                piece += more
            found += piece
            if len(piece) < wanted:
                break
        return bytes(found)

    def write(self, handle: bytes, data: bytes) -> None:
        """Write from the start of the file, many requests ahead."""
        asked: deque[Future[bytes]] = deque()
        for at in range(0, len(data), _BLOCK):
            asked.append(self._request(_WRITE, _string(handle), struct.pack(">Q", at), _string(data[at : at + _BLOCK])))
            if len(asked) >= _IN_FLIGHT:
                _checked(asked.popleft().result())
        for future in asked:
            _checked(future.result())

    def _read(self, handle: bytes, offset: int, size: int) -> Future[bytes]:
        return self._request(_READ, _string(handle), struct.pack(">QI", offset, size))

    def _ask(self, kind: int, *fields: bytes) -> bytes:
        return _checked(self._request(kind, *fields).result())

    def _request(self, kind: int, *fields: bytes) -> Future[bytes]:
        future: Future[bytes] = Future()
        with self._lock:
            if self._lost:
                raise EOFError
            number = next(self._numbers)
            self._pending[number] = future
        # Under a lock of its own: while the server waits for us to take its answers, they must be taken.
        with self._sending:
            self._send(struct.pack(">BI", kind, number) + b"".join(fields))
        return future

    def _send(self, packet: bytes) -> None:
        packet = struct.pack(">I", len(packet)) + packet
        try:
            for at in range(0, len(packet), PIECE):
                self.channel.sendall(packet[at : at + PIECE])
        except OSError:
            raise EOFError from None

    def _receive(self) -> bytes:
        head = self._take(4)
        (size,) = struct.unpack(">I", head)
        if size > _LARGEST:
            raise EOFError(f"no SFTP: {head + self._buffer[:80]!r}")  # the greeting of a login shell, most likely
        return self._take(size)

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            piece = self.channel.recv(1 << 18)
            if not piece:
                raise EOFError
            self._buffer += piece
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _dispatch(self) -> None:
        """Hand each answer to whoever waits for it; runs in a thread until the channel ends."""
        try:
            while True:
                packet = self._receive()
                (number,) = struct.unpack_from(">I", packet, 1)
                with self._lock:
                    future = self._pending.pop(number)
                future.set_result(packet[:1] + packet[5:])
        except (EOFError, OSError, paramiko.SSHException, struct.error, KeyError):
            self.channel.close()
        with self._lock:
            self._lost = True
            lost = list(self._pending.values())
            self._pending.clear()
        for future in lost:
            future.set_exception(EOFError())


def _string(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else os.fsencode(value)
    return struct.pack(">I", len(data)) + data


def _strings(data: bytes) -> list[bytes]:
    found = []
    while data:
        (size,) = struct.unpack_from(">I", data)
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def _names(answer: bytes) -> list[str]:
    """The names of a NAME answer, each of which comes with a line of ``ls -l`` and attributes."""
    found, at = [], 5
    for _ in range(struct.unpack_from(">I", answer, 1)[0]):
        (size,) = struct.unpack_from(">I", answer, at)
        found.append(os.fsdecode(answer[at + 4 : at + 4 + size]))
        at += 4 + size
        at += 4 + struct.unpack_from(">I", answer, at)[0]
        (flags,) = struct.unpack_from(">I", answer, at)
        at += 4 + sum(size for flag, size in _ATTRIBUTES.items() if flags & flag)
        if flags & _MORE:
            (pairs,) = struct.unpack_from(">I", answer, at)
            at += 4
            for _ in range(2 * pairs):
                at += 4 + struct.unpack_from(">I", answer, at)[0]
    return found


def _checked(answer: bytes) -> bytes:
    """What an answer holds after its kind; raises what a status reports."""
    if answer[0] != _STATUS:
        return answer[1:]
    code, size = struct.unpack_from(">II", answer, 1)
    if code != _OK:
        raise OSError(_ERRNO.get(code, errno.EIO), answer[9 : 9 + size].decode("utf-8", "replace") or f"SFTP {code}")
    return b""


def _data(future: Future[bytes]) -> bytes:
    answer = future.result()
    if answer[0] == _STATUS and struct.unpack_from(">I", answer, 1)[0] == _EOF:
        return b""
    return _strings(_checked(answer))[0]
