"""What outlives a cluster: objects by name, and results by content, at the embedded site."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import hpcnb as hpc
from hpcnb.pilot.worker.cache import Cached
from tests.isolation import Isolation
from tests.unit.pilot.host import wait_for

pytestmark = pytest.mark.slow

ROOT = str(Path(__file__).parents[2])


def cluster(name: str) -> hpc.Cluster:
    """One with two workers of one core."""
    made = hpc.use(hpc.Cluster("local", name=name, workers_per_node=2, cores_per_worker=1))
    made.wait_until_ready()
    return made


def test_an_object_outlives_its_cluster(place: Isolation) -> None:
    """It is there by name on the next cluster, and tasks run on the worker that has read it."""
    with cluster("first"):
        made = hpc.submit(np.arange, 200_000)
        assert hpc.persist(made, "numbers").result().sum() == np.arange(200_000).sum()
        hpc.persist({"a": 1}, "small")
        hpc.persist({"a": 2}, "small")
        assert hpc.load("small").result() == {"a": 2}
    with cluster("second") as second:
        assert sorted(hpc.persisted()) == ["numbers", "small"]
        numbers = hpc.load("numbers")
        assert numbers.result()[-1] == 199_999
        (where,) = second.client.who_has()[numbers.key]
        assert {hpc.submit(worker_of, numbers).result() for _ in range(4)} == {where}
        assert second.client.who_has()[numbers.key] == (where,)
        assert hpc.load("numbers").key == numbers.key  # nobody reads it twice
        hpc.unpersist("small")
        with pytest.raises(hpc.TaskError, match="no object 'small'") as caught:
            hpc.load("small")
        assert "kept: numbers" in str(caught.value)
    (kept,) = (place.home / "objects").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".a", "-a", "a b", "ä" * 3, "a" * 101])
def test_a_name_that_cannot_be_one(name: str) -> None:
    """It is refused before anything is done."""
    with pytest.raises(hpc.TaskError, match="cannot be the name of an object"):
        hpc.persist(1, name)


def worker_of(_: object) -> str:
    """The address of the worker that runs this."""
    from distributed import get_worker

    return str(get_worker().address)


NOTEBOOK = """
import sys
import hpcnb as hpc
from hpcnb.pilot.worker.cache import Cached
def slow(x, folder):
    import os, time
    with open(folder + "/ran", "a") as ran:
        ran.write("x")
    while not os.path.exists(folder + "/go"):
        time.sleep(0.02)
    return x * 2
hpc.attach("shared")
asked = [hpc.submit(Cached.of(slow), 21, sys.argv[1]) for _ in range(5)]
print("asked", flush=True)
print(hpc.gather(asked))
"""


def test_equal_calls_of_two_notebooks_run_once(place: Isolation, tmp_path: Path) -> None:
    """Ten at one time: one computes, the others get what it gives; a changed argument is another call."""
    with cluster("shared"):
        notebooks = [
            subprocess.Popen(
                [sys.executable, "-c", NOTEBOOK, str(tmp_path)],
                env=os.environ | place.environ | {"PYTHONPATH": ROOT, "JPY_SESSION_NAME": f"{number}.ipynb"},
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in (1, 2)
        ]
        for notebook in notebooks:
            assert notebook.stdout is not None
            assert notebook.stdout.readline() == "asked\n"
        (tmp_path / "go").touch()
        assert [notebook.communicate(timeout=60)[0] for notebook in notebooks] == [f"{[42] * 5}\n"] * 2
        assert (tmp_path / "ran").read_text() == "x"
        assert hpc.submit(Cached.of(plus), 1).result() == hpc.submit(Cached.of(plus), 1).result() == 2


def test_a_task_is_not_run_again(place: Isolation, tmp_path: Path) -> None:
    """The same content at another path is a hit; one byte of an argument or of the code changed is a miss."""
    ran = str(tmp_path / "ran")  # a path itself would count by what the file holds

    @hpc.task(cache=True)
    def double(text: hpc.FileIn, by: int, out: hpc.FileOut) -> int:
        with Path(ran).open("a") as file:
            file.write("x")
        Path(out).write_text(Path(text).read_text() * by)
        return by

    @hpc.task(cache=True)
    def other(text: hpc.FileIn, by: int, out: hpc.FileOut) -> int:
        with Path(ran).open("a") as file:
            file.write("x")
        Path(out).write_text(Path(text).read_text() * by + "!")
        return by

    def runs(task: hpc.Task, content: str, by: int) -> tuple[str, int]:
        """What comes of it, and how often it has run by then; at a path of its own each time."""
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / f"text{by}").write_text(content)
        assert hpc.wait_on(task(folder / f"text{by}", by, folder / "out")) == by
        hpc.wait_on_file(folder / "out")
        return (folder / "out").read_text(), len(Path(ran).read_text())

    with cluster("cached"):
        assert runs(double, "ab", 2) == ("abab", 1)
        assert runs(double, "ab", 2) == ("abab", 1)
        assert runs(double, "ac", 2) == ("acac", 2)
        assert runs(double, "ab", 3) == ("ababab", 3)
        assert runs(other, "ab", 2) == ("abab!", 4)
        assert runs(double, "ab", 2) == ("abab", 4)


def plus(x: int) -> int:
    """One more."""
    return x + 1


def test_a_killed_owner_does_not_block_the_others(place: Isolation, tmp_path: Path) -> None:
    """The worker that computes is killed in the middle: another one computes, and everybody has the result."""
    (tmp_path / "pids").mkdir()

    def slow(folder: str) -> int:
        mine = Path(folder, "pids", str(os.getpid()))
        mine.touch()
        while not Path(folder, "go").exists():
            threading.Event().wait(0.02)
        return 7

    with cluster("shared"):
        asked = [hpc.submit(Cached.of(slow), str(tmp_path)) for _ in range(4)]
        wait_for(lambda: list((tmp_path / "pids").iterdir()), 60)
        os.kill(int(next((tmp_path / "pids").iterdir()).name), 9)
        (tmp_path / "go").touch()
        assert hpc.gather(asked) == [7] * 4
