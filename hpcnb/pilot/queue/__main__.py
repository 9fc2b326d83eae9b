"""`python -m hpcnb.pilot.queue pilot|node|worker RUN_DIR`: the processes of a job that drains a queue."""

import sys

from hpcnb.pilot.queue.pilot import QueueRun, main, serve_node, work

if __name__ == "__main__":
    part, path = sys.argv[1:]
    sys.exit({"pilot": main, "node": serve_node, "worker": work}[part](QueueRun.load(path)))
