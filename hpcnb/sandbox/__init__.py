"""A real one-machine Slurm site with sshd, for demonstrations, Binder and tests."""

from hpcnb.sandbox.programs import missing_packages
from hpcnb.sandbox.site import Sandbox, SandboxStatus

__all__ = ["Sandbox", "SandboxStatus", "missing_packages"]
