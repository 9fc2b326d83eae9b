"""What must not be lost: one finished, one running and five queued futures, and a cell that counts."""

from __future__ import annotations

import re
import time

from tests.lab.lab import ADA, LONG, until

TASKS = """
def work(number):
    import pathlib, time
    home = pathlib.Path.home()
    with open(home / "ran", "a") as log:
        print("began", number, file=log, flush=True)
        while not (home / f"go-{number}").exists():
            time.sleep(0.02)
        print("ended", number, file=log, flush=True)
    return number * number

first = hpc.submit(work, 0)
assert first.result() == 0
futures = [hpc.submit(work, number) for number in range(1, 7)]
"""
PAUSE = 1.0 if LONG else 0.1
"""Seconds between two lines: of more than a thousand the notebook would show the last ones only."""
COUNTER = f"""%%hpc
import pathlib, time
count = 0
while not (pathlib.Path.home() / "stop").exists():
    print(count, time.time(), flush=True)
    count += 1
    time.sleep({PAUSE})
"""
LINE = re.compile(r"^(\d+) (\d+\.\d+)\n", re.MULTILINE)


class Work:
    """One finished, one running and five queued futures, and a cell that counts."""

    def __init__(self, lab, notebook):
        self._lab, self._notebook = lab, notebook
        self.gaps: list[float] = []
        for name in ("ran", "stop", *(f"go-{number}" for number in range(7))):
            self._home(name).unlink(missing_ok=True)
        self.let(0)
        notebook.do(TASKS)
        self.counter = notebook.send(COUNTER)
        notebook.hear_until(lambda: len(self.lines) > 1)
        until(lambda: self.ran == ["began 0", "ended 0", "began 1"], why="the second task runs")

    def _home(self, name):
        return self._lab.login.path(f"{ADA.home}/{name}")

    @property
    def lines(self):
        """What the counter has printed: its number, and when that was."""
        return [(int(number), float(printed)) for number, printed in LINE.findall(self.counter.text)]

    @property
    def ran(self):
        return self._home("ran").read_text().splitlines()

    def let(self, *numbers):
        """Have these tasks end."""
        for number in numbers:
            self._home(f"go-{number}").touch()

    def passes(self, seconds):
        """Let time pass, and take what comes."""
        until = time.monotonic() + seconds
        self._notebook.hear_until(lambda: time.monotonic() > until, seconds + 10)

    def back(self):
        """The path is back: wait for the first line that was printed since."""
        began = time.time()
        self._notebook.hear_until(lambda: any(printed > began for _, printed in self.lines[-1:]), 60)
        self.gaps.append(time.time() - began)

    def returns(self, notebook):
        """Another kernel has come for it, and attaches."""
        self._notebook = notebook
        self.counter = notebook.wait(notebook.send("hpc.attach()\n%hpc attach"), 60)
        assert self.counter.reply["status"] == "ok", self.counter.outputs

    def hears(self, text):
        """Wait for something in the counter's output."""
        self._notebook.hear_until(lambda: text in self.counter.text, 60)

    def end(self):
        """Let all of it end."""
        self.let(*range(7))
        self.passes(0.3)
        self._home("stop").touch()

    def check_futures(self, expression):
        """Each task has run once, and its result is here."""
        assert self._notebook.value(f"hpc.gather({expression})") == "[0, 1, 4, 9, 16, 25, 36]"
        assert sorted(self.ran) == sorted(f"{word} {number}" for word in ("began", "ended") for number in range(7))

    def check_lines(self):
        """No line is missing, none is there twice."""
        assert [number for number, _ in self.lines] == list(range(len(self.lines)))

    def check(self):
        """All that was asked for has happened once, and is here; nobody saw an error."""
        self.end()
        self._notebook.wait(self.counter, 60)
        assert self.counter.reply["status"] == "ok", self.counter.outputs
        # What is shown of the other cells' work is replaced in their place, by whichever cell runs.
        said = [(kind, content) for kind, content in self.counter.outputs if kind != "update_display_data"]
        assert [content for kind, content in said if kind != "stream" or content["name"] != "stdout"] == []
        self.check_lines()
        self.check_futures("[first, *futures]")
        assert self._notebook.do("%hpc").outputs
