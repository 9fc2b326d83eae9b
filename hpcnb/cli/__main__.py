"""`python -m hpcnb.cli`: the `hpcnb` command where its script is not on the PATH."""

from __future__ import annotations

from hpcnb.cli import main

if __name__ == "__main__":
    main()
