"""`python -m hpcnb.pilot --run-dir DIR`: what the job's script becomes."""

from __future__ import annotations

import argparse
import sys

from hpcnb.pilot.lead import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="lead one allocation of an hpcnb cluster")
    parser.add_argument("--run-dir", required=True)
    sys.exit(main(parser.parse_args().run_dir))
