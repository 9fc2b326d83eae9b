"""What all tests share: hypothesis gives the same examples each time, and a noisy machine is no failure."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

from tests.figures import figure, pytest_terminal_summary
from tests.isolation import isolated

__all__ = ["figure", "isolated", "pytest_terminal_summary"]

settings.register_profile("hpcnb", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hpcnb")

# A run that was started in the background, or by nohup, ignores these, and all that it starts would, too.
for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGINT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
