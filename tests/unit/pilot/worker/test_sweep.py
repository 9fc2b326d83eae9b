"""Which results by content go, and which stay."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcnb.pilot.worker.cache import Cache
from hpcnb.pilot.worker.sweep import sweep, used
from tests.unit.pilot.tiny import wait_for

HOUR, DAY = 3600.0, 86400.0
NOW = 1_000_000_000.0


@pytest.fixture
def keep(tmp_path: Path):
    """Have a file in the folder that was used so long ago."""

    def keep(name: str, idle: float, size: int = 100) -> Path:
        path = tmp_path / "cache" / name[:2] / name[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        os.utime(path, (NOW - idle, NOW - idle))
        return path

    return keep


def test_what_was_used_longest_ago_goes_first(keep, tmp_path):
    """Beyond the size the oldest go, until the rest fits; what was used within the hour stays."""
    old = [keep(f"{number:02}old", (9 - number) * DAY) for number in range(4)]
    young = [keep(f"{number:02}young", HOUR / 2) for number in range(4)]
    assert sweep(tmp_path / "cache", NOW, 600) == old[:2]
    assert sweep(tmp_path / "cache", NOW, 600) == []
    assert sweep(tmp_path / "cache", NOW, 0) == old[2:]
    assert all(path.exists() for path in young)


def test_what_nobody_has_used_for_long_goes(keep, tmp_path):
    """So do the remains of who died: claims and half-written files, which are no results, and count for nothing."""
    gone = [keep("aaresult", 31 * DAY), keep("bb.half", 2 * DAY), keep("ccx.claim-0", 2 * DAY, 10**6)]
    stay = [keep("ddresult", 29 * DAY), keep("ee.half", HOUR), keep("ffx.claim-0", HOUR)]
    assert sorted(sweep(tmp_path / "cache", NOW, 10**5)) == gone
    assert all(path.exists() for path in stay)


def test_what_is_used_meanwhile_stays(keep, tmp_path, monkeypatch):
    """A result that somebody uses between the look and the removal is not removed; nor does it matter who removes it."""
    first, second = keep("aaresult", 40 * DAY), keep("bbresult", 40 * DAY)
    real = Path.stat

    def stat(path: Path, **more: bool) -> os.stat_result:
        if path == first:
            os.utime(first)
        if path == second:
            second.unlink(missing_ok=True)
        return real(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stat)
        assert sweep(tmp_path / "cache", NOW, 0) == []
    assert first.exists()


def test_a_hit_is_a_use(tmp_path):
    """A result that is found counts as new; the folder is swept when something is written, once an hour at most."""
    folder = tmp_path / "cache"
    cache = Cache(folder)
    cache.result("aa" * 32, lambda: 1)
    wait_for((tmp_path / "cache.swept").exists)
    place = folder / "aa" / ("aa" * 31)
    old = time.time() - 2 * HOUR
    os.utime(place, (old, old))
    Cache(folder, limit=0).result("bb" * 32, lambda: 2)
    assert place.exists()  # it was swept within the hour
    cache.result("aa" * 32, lambda: 1)
    assert time.time() - place.stat().st_mtime < HOUR
    os.utime(place, (old, old))
    os.utime(tmp_path / "cache.swept", (old, old))
    Cache(folder, limit=0).result("cc" * 32, lambda: 3)
    wait_for(lambda: not place.exists())
    used(place)  # which has gone
    assert cache.result("bb" * 32, lambda: 4) == 2
