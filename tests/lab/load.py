"""A program for the laptop: bulk data both ways, small tasks and a flood of prints, all at once, until told to stop.

It says ``loaded`` when each of them has begun, stops when its stdin ends, and says as JSON what has come of it.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable

import hpcnb as hpc
from hpcnb.session import Message

BULK = 100_000_000
TASKS = 10_000
LINES = 900
"""Of a cell; of more than a thousand the notebook would get the last ones only."""
FLOOD = f"""
import time
for count in range({LINES}):
    print(count, time.time())
    if count % 20 == 0:
        time.sleep(0.01)
"""
LINE = re.compile(r"^\d+ (\d+\.\d+)$", re.MULTILINE)


def digest(data: bytes) -> str:
    """What the data is, wherever it is."""
    return hashlib.blake2b(data).hexdigest()


def give_back(data: bytes) -> bytes:
    """Make the way back as long as the way there: what comes back is another object."""
    return data[::-1]


def tiny(number: int) -> int:
    """A task that leaves a trace in its worker."""
    vars(builtins).setdefault("ran", []).append(number)
    return number


def traces() -> list[int]:
    """What the tasks have left in a worker."""
    return vars(builtins).get("ran", [])


class Load:
    """The three kinds of load, in a thread each."""

    def __init__(self, cluster: hpc.Cluster) -> None:
        self.cluster = cluster
        self.enough = threading.Event()
        self.begun = {name: threading.Event() for name in ("bulk", "many", "flood")}
        self.rounds = self.tasks = self.cells = 0
        self.heard: list[tuple[float, float]] = []
        self.faults: list[str] = []
        self.threads = [
            threading.Thread(target=self._guarded, args=(run,)) for run in (self.bulk, self.many, self.flood)
        ]

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as exc:
            self.faults.append(f"{run.__name__}: {exc!r}")
            self.begun[run.__name__].set()

    def bulk(self) -> None:
        """Scatter and gather 100 MB, again and again."""
        client = self.cluster.client
        while not self.enough.is_set() or not self.rounds:
            data = os.urandom(BULK)
            there = client.scatter(data, hash=False)
            self.begun["bulk"].set()
            assert client.submit(digest, there, pure=False).result() == digest(data), "it arrived changed"
            assert client.submit(give_back, there, pure=False).result() == data[::-1], "it came back changed"
            del there
            self.rounds += 1

    def many(self) -> None:
        """Run ten thousand tasks, a thousand at a time."""
        for first in range(0, TASKS, TASKS // 10):
            numbers = range(first, first + TASKS // 10)
            futures = self.cluster.client.map(tiny, numbers, pure=False)
            self.begun["many"].set()
            assert self.cluster.client.gather(futures) == [*numbers]
            self.tasks += len(numbers)

    def flood(self) -> None:
        """Run cells that print, one after the other, and hear every line."""
        session, last = self.cluster.session, False
        while not last:
            last = self.enough.is_set()  # one more is begun then
            heard: list[tuple[str, float]] = []

            def hear(message: Message, heard: list[tuple[str, float]] = heard) -> None:
                if message.type == "stream":
                    heard.append((message.content["text"], time.time()))

            reply = session.wait(session.execute(FLOOD, on_message=hear))
            assert reply.status == "ok", reply
            numbers = [int(line.split()[0]) for line in "".join(text for text, _ in heard).splitlines()]
            assert numbers == [*range(LINES)], f"{len(numbers)} lines of {LINES}: {numbers}"
            # When a line of each message was printed, and when it was here.
            self.heard += [(float(line[1]), now) for text, now in heard if (line := LINE.search(text))]
            self.cells += 1
            self.begun["flood"].set()

    def run(self) -> dict:
        """Load until stdin ends."""
        for thread in self.threads:
            thread.start()
        for begun in self.begun.values():
            begun.wait()
        print("loaded", flush=True)  # noqa: T201 - to the test
        sys.stdin.read()
        self.enough.set()
        for thread in self.threads:
            thread.join()
        (ran,) = self.cluster.client.run(traces).values()
        kept = ("faults", "rounds", "tasks", "cells", "heard")
        return {**{name: getattr(self, name) for name in kept}, "ran": ran}


if __name__ == "__main__":
    with hpc.Cluster("centre", workers_per_node=1, cores_per_worker=2, memory_per_worker="4GiB") as cluster:
        cluster.wait_until_ready(60)
        print(json.dumps(Load(cluster).run()), flush=True)  # noqa: T201 - to the test
