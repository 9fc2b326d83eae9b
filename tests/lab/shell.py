"""``make lab-shell``: a shell on the lab's laptop; all of the lab ends with it."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.lab.files import BLACK_HOLE
from tests.lab.host import NAMESPACES, PATH
from tests.lab.lab import NB, Lab, obstacle

WELCOME = """\
This is the laptop, and you are nb. Behind the firewall is a computing centre with Slurm, and you are ada there:

    hpcnb up                     a cluster at the site "centre" (it is configured)
    ipython, then %load_ext hpcnb
    ssh login                    the login node; its other faces: {faces}

As root, in another terminal:

{hosts}

    {laptop} nft '{cut}'
                                 cuts the path; nft delete table inet cut heals it
"""


def welcome(lab: Lab) -> str:
    """What a person who enters should know."""
    enter = {name: f"nsenter --target={host.pid} {' '.join(NAMESPACES)}" for name, host in lab.hosts.items()}
    return WELCOME.format(
        faces="login-nofwd, login-sftp",
        hosts="\n".join(f"    {command}   # {name}" for name, command in enter.items()),
        laptop=enter["laptop"],
        cut=" ".join(BLACK_HOLE.split()),
    )


def main() -> int:
    """Bring the lab up, be there, take it down."""
    if why := obstacle():
        sys.stderr.write(f"There can be no lab here: {why}\n")
        return 1
    with Lab() as lab:
        lab.configure()
        print(welcome(lab))  # noqa: T201 - to a person
        # A terminal of its own, since job control does not cross process namespaces.
        command = ("script", "--quiet", "--return", "--command", "bash", "/dev/null")
        environ = {"PATH": f"{Path(sys.executable).parent}:{PATH}"}
        return lab.laptop.start(*command, user=NB, environ=environ, stdin=None, stdout=None, stderr=None).wait()


if __name__ == "__main__":
    sys.exit(main())
