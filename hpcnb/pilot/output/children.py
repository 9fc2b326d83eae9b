"""Child processes of tasks: what was printed before comes before; where several tasks run at once, each has a file for them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

from hpcnb.pilot.output.capture import Capture
from hpcnb.pilot.output.speaker import mine

__all__ = ["install"]


def install(capture: Capture) -> None:
    """Let children that would inherit the worker's stdout and stderr inherit their thread's."""
    subprocess.Popen.__init__ = _given(capture, subprocess.Popen.__init__)  # type: ignore[method-assign]
    os.system = _after(capture, os.system)
    os.register_at_fork(before=capture.before_child, after_in_child=_take)


def _after(capture: Capture, start: Callable[..., int]) -> Callable[..., int]:
    def start_after(command: Any) -> int:
        capture.before_child()
        return start(command)

    return start_after


def _given(capture: Capture, init: Callable[..., None]) -> Callable[..., None]:
    def init_given(  # noqa: PLR0917 - as it is there
        self: Any,
        args: Any,
        bufsize: int = -1,
        executable: Any = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        *rest: Any,
        **more: Any,
    ) -> None:
        if (tape := capture.before_child()) is not None:
            stdout = tape.descriptor if stdout is None else stdout
            stderr = tape.descriptor if stderr is None else stderr
        init(self, args, bufsize, executable, stdin, stdout, stderr, *rest, **more)

    return init_given


def _take() -> None:
    if mine.tape is not None and mine.tape.owner is not None:
        os.dup2(mine.tape.descriptor, 1)
        os.dup2(mine.tape.descriptor, 2)
