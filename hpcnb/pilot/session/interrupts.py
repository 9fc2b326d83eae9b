"""Interrupts reach the cell that runs, also those that Python alone would lose."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time

__all__ = ["install"]

AGAIN = 0.05
"""Seconds until a lost interrupt is repeated."""
LATEST = 1.0
"""Seconds between two attempts to wake a main thread that computes where Python cannot raise anything."""
WAKE = signal.SIGURG
"""A signal that nobody minds: ignored by default, so also by what a cell starts."""


def install() -> None:
    """See to this process's interrupts; call it in the main thread."""
    sys.unraisablehook = _interrupt_again
    seen, tell = socket.socketpair()
    tell.setblocking(False)
    awake = _Awake()
    signal.signal(WAKE, awake.see)
    signal.set_wakeup_fd(tell.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_wake, args=(seen, awake), name="interrupts", daemon=True).start()


class _Awake:
    """Whether the main thread has heeded its signals; no `threading.Event`, whose lock a second signal would wait for."""

    def __init__(self) -> None:
        self.seen = False
        self.thread = threading.get_ident()

    def see(self, *_: object) -> None:
        self.seen = True


def _wake(told: socket.socket, awake: _Awake) -> None:
    """Wake the main thread after an interrupt.

    Python notes a signal and raises it when the main thread next looks. Between its last look and a call that waits it does
    not look any more, and if another thread got the signal nothing ends that call. The next signal does.
    """
    while numbers := told.recv(4096):
        if signal.SIGINT not in numbers:
            continue
        awake.seen, pause = False, AGAIN
        while True:
            time.sleep(pause)
            if awake.seen:
                break
            signal.pthread_kill(awake.thread, WAKE)
            pause = min(2 * pause, LATEST)


def _interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Try an interrupt again that came where nothing can be raised, as in a callback of the fork that starts a child."""
    if unraisable.exc_type is KeyboardInterrupt:
        # Not from here, where it could not be raised either. If no cell runs by then, nothing happens.
        threading.Timer(AGAIN, os.kill, [os.getpid(), signal.SIGINT]).start()
    else:
        sys.__unraisablehook__(unraisable)
