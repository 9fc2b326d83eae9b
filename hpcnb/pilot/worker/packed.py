"""An argument as it travels: bytes to the scheduler, and a value again where the call runs."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from hpcnb.pilot.values import Frame, dump

__all__ = ["Packed", "unpacked"]


class Packed:
    """A value that was pickled where it was made, with cloudpickle: what is by value to a notebook is so in all of it.

    Raises
    ------
    Exception
        It cannot be pickled.
    """

    __slots__ = ("frames",)

    def __init__(self, value: Any) -> None:
        self.frames: Sequence[Frame] = dump(value)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        stream, *buffers = self.frames
        return _carried, (stream, *(pickle.PickleBuffer(buffer) for buffer in buffers))

    def __sizeof__(self) -> int:
        return sum(memoryview(frame).nbytes for frame in self.frames)

    def value(self) -> Any:
        """Make the value, anew each time."""
        # Arrays are to be writable, and no call is to see what another one writes.
        buffers = [bytearray(frame) for frame in self.frames[1:]]
        return pickle.loads(self.frames[0], buffers=buffers)  # noqa: S301 - from the user's own client


def _carried(*frames: Frame) -> Packed:
    packed = Packed.__new__(Packed)
    packed.frames = frames
    return packed


def unpacked(value: Any) -> Any:
    """The value with all that is packed in it, also in lists, tuples, sets and dictionaries, made again."""
    if type(value) is Packed:
        return value.value()
    if type(value) in (list, tuple, set):
        found = [unpacked(one) for one in value]
        changed = any(new is not old for new, old in zip(found, value, strict=True))
        return type(value)(found) if changed else value
    if type(value) is dict:
        found = [unpacked(one) for one in value.values()]
        changed = any(new is not old for new, old in zip(found, value.values(), strict=True))
        return dict(zip(value, found, strict=True)) if changed else value
    return value
