"""Results that are kept, over several processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import pytest

from hpcnb.errors import CannotSerialize, NotReady
from hpcnb.pilot.worker import cache as cache_module
from hpcnb.pilot.worker.cache import Cache, Cached

KEY = "ab" * 32
ROOT = str(Path(__file__).parents[4])


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty one."""
    return Cache(tmp_path / "cache")


def counted(count: list[int]) -> Callable[[], int]:
    """What says how often it ran."""

    def compute() -> int:
        count.append(1)
        return 42

    return compute


def test_the_second_time_nothing_runs(cache: Cache, tmp_path: Path) -> None:
    """A result is computed once; all that is left of it is one private file."""
    runs: list[int] = []
    assert [cache.result(KEY, counted(runs)) for _ in range(3)] == [42] * 3
    assert len(runs) == 1
    (kept,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert kept.stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in (kept.parent, tmp_path / "cache")} == {0o700}
    assert cache.result("cd" * 32, counted(runs)) == 42
    assert len(runs) == 2


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:10], lambda b: b"", lambda b: b[:-1] + b"?"])
def test_a_cut_off_result_is_never_a_hit(cache: Cache, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Whatever a full disk or a dead node left: it is computed again, and then right."""
    runs: list[int] = []
    cache.result(KEY, counted(runs))
    (kept,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    kept.write_bytes(damage(kept.read_bytes()))
    assert cache.result(KEY, counted(runs)) == 42
    assert len(runs) == 2
    assert cache.result(KEY, counted(runs)) == 42
    assert len(runs) == 2


def test_equal_calls_at_one_time_join(cache: Cache) -> None:
    """Ten threads ask; one computes, while the others wait for it."""
    runs: list[int] = []
    together = threading.Barrier(10)

    def ask(_: int) -> int:
        together.wait(10)
        return cache.result(KEY, counted(runs))

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(ask, range(10))) == [42] * 10
    assert len(runs) == 1


def test_an_error_is_not_kept(cache: Cache) -> None:
    """What fails is raised, leaves nothing, and is tried again."""

    def fail() -> int:
        raise ZeroDivisionError

    runs: list[int] = []
    with pytest.raises(ZeroDivisionError):
        cache.result(KEY, fail)
    assert cache.result(KEY, counted(runs)) == 42


def test_what_cannot_be_kept_is_said(cache: Cache, tmp_path: Path) -> None:
    """A result that no file can hold is an error, and no claim stays."""
    with pytest.raises(CannotSerialize, match="cannot be written"):
        cache.result(KEY, threading.Lock)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("step", ["make_folder", "write"])
def test_a_disk_that_is_full_costs_no_result(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    """What was computed is given, whether it can be kept or not; the log says that it was not."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_module.pickled, step, full)
    runs: list[int] = []
    assert [cache.result(KEY, counted(runs)) for _ in range(2)] == [42, 42]
    assert len(runs) == 2
    assert "No space left" in caplog.text


class Gone:
    """Something whose class cannot be found when it is read."""

    def __reduce__(self) -> tuple[object, ...]:
        return gone, ()


def gone() -> None:
    """As pickle says it."""
    raise AttributeError("Can't get attribute 'Gone'")


def test_a_result_that_cannot_be_read_any_more_is_computed(cache: Cache) -> None:
    """Its class was renamed, say: no reason to fail for ever."""
    assert isinstance(cache.result(KEY, Gone), Gone)
    assert cache.result(KEY, lambda: 42) == 42
    assert cache.result(KEY, lambda: 43) == 42


OWNER = f"""
import sys, time
from pathlib import Path
from hpcnb.pilot.worker.cache import Cache
def compute():
    print("computes", flush=True)
    sys.stdin.read()
    return 43
print(Cache(Path(sys.argv[1])).result({KEY!r}, compute))
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has begun to compute, and ends when its stdin does."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "cache")],
        env=os.environ | {"PYTHONPATH": ROOT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "computes\n"
        yield process
        process.kill()


def test_another_process_is_waited_for(cache: Cache, owner: subprocess.Popen[str]) -> None:
    """As long as it lives its result is the result."""
    runs: list[int] = []
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(cache.result, KEY, counted(runs))
        assert owner.stdin is not None
        owner.stdin.close()
        assert asked.result(30) == 43
    assert runs == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_owner_blocks_nobody(
    cache: Cache, owner: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, end: signal.Signals, tmp_path: Path
) -> None:
    """Of those who wait for one that was killed, or does not move, one takes its place; nothing of the dead one stays."""
    monkeypatch.setattr(cache_module, "STALE", 1.5)
    owner.send_signal(end)
    runs: list[int] = []
    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(lambda _: cache.result(KEY, counted(runs)), range(5))) == [42] * 5
    assert len(runs) == 1
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 1


def test_a_cached_function_is_called_like_it(tmp_path: Path) -> None:
    """Arguments by position and by name; the order of names does not count, each value does."""

    def add(a: int, b: int = 0, c: int = 0) -> int:
        with (tmp_path / "runs").open("a") as file:
            file.write("x")
        return a + b + c

    call = Cached.of(add)
    assert call.__name__ == "add"
    with dask.config.set({"hpcnb.home": str(tmp_path)}):
        assert [call(1, b=2, c=3), call(1, c=3, b=2), call(1, b=2, c=4), call(2, b=2, c=3)] == [6, 6, 7, 7]
    assert (tmp_path / "runs").read_text() == "xxx"


def test_outside_a_site_nothing_is_kept() -> None:
    """Where there is no site there is no place for results, and that is said."""
    with pytest.raises(NotReady, match="kept at a site"):
        Cached.of(len)("abc")
