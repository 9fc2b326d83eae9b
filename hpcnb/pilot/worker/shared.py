"""Objects between two processes of one host: pickled into memory that both map, so that arrays are copied once."""

from __future__ import annotations

import mmap
import os
import pickle
import struct
from typing import Any

from hpcnb.pilot.values import dump

__all__ = ["received", "shared"]

ALIGNED = 64
"""Bytes: where an array begins, as its own allocator would have it."""
_SIZE = struct.Struct("<Q")


def shared(value: Any) -> int:
    """Pickle a value into memory that has no name; returns its descriptor, which is to be closed.

    Raises
    ------
    Exception
        It cannot be pickled.
    """
    frames = dump(value)
    sizes = [memoryview(frame).nbytes for frame in frames]
    descriptor = os.memfd_create("hpcnb")
    try:
        os.truncate(descriptor, _place(len(sizes), sizes)[-1])
        with mmap.mmap(descriptor, 0) as memory:
            _SIZE.pack_into(memory, 0, len(sizes))
            for number, (size, at) in enumerate(zip(sizes, _place(len(sizes), sizes), strict=False)):
                _SIZE.pack_into(memory, _SIZE.size * (number + 1), size)
                memory[at : at + size] = memoryview(frames[number]).cast("B")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def received(descriptor: int) -> Any:
    """The value that another process has put there; closes the descriptor. Arrays lie where they are, and are writable."""
    try:
        memory = memoryview(mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE))
    finally:
        os.close(descriptor)
    (count,) = _SIZE.unpack_from(memory, 0)
    sizes = [_SIZE.unpack_from(memory, _SIZE.size * (number + 1))[0] for number in range(count)]
    frames = [memory[at : at + size] for size, at in zip(sizes, _place(count, sizes), strict=False)]
    return pickle.loads(frames[0], buffers=frames[1:])  # noqa: S301 - only a process of this user has the descriptor


def _place(count: int, sizes: list[int]) -> list[int]:
    """Where each frame begins, and where the last one ends."""
    at = [_aligned(_SIZE.size * (count + 1))]
    for size in sizes:
        at.append(_aligned(at[-1] + size))
    return at


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNED) * ALIGNED
