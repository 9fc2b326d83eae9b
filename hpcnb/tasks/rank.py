"""One rank of an MPI task: the function comes on the first one's stdin, what came of it leaves on stdout."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from typing import Any

import cloudpickle

__all__ = ["MARK", "main"]

MARK = b"\0hpcnb\0"
"""What comes before the answer; the ranks' own output is on stderr."""


def main() -> None:
    """Run the function of an MPI task; all ranks end when it raises in one of them."""
    answer = os.dup(1)
    os.dup2(2, 1)
    from mpi4py import MPI

    world: Any = MPI.COMM_WORLD
    fn, arguments = pickle.loads(world.bcast(sys.stdin.buffer.read() if world.rank == 0 else None))  # noqa: S301
    try:
        value = cloudpickle.dumps(fn(**arguments))
    except BaseException as error:
        traceback.print_exc()
        _write(answer, cloudpickle.dumps(error))
        world.Abort(1)
    values = world.gather(value)
    if world.rank == 0:
        _write(answer, pickle.dumps(values))


def _write(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(MARK + content)
