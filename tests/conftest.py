"""What all tests share: hypothesis gives the same examples each time, and a noisy machine is no failure."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.isolation import isolated

__all__ = ["isolated"]

settings.register_profile("hpcnb", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hpcnb")
