"""``python -m hpcnb.compat.pycompss PROGRAM [ARGUMENTS]``: run a PyCOMPSs program as it is, as ``runcompss`` does."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from hpcnb.compat import pycompss
from hpcnb.tasks import barrier


def main() -> int:
    """Run the program, and wait for its tasks."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.stdout.write(f"{__doc__}\n")
        return 0 if len(sys.argv) > 1 else 2
    del sys.argv[0]
    pycompss.activate()
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
    barrier()
    return 0


if __name__ == "__main__":
    sys.exit(main())
