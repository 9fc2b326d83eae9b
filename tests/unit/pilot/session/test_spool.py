"""Messages for a reader who may be cut off."""

from __future__ import annotations

import asyncio
import resource

import pytest

from hpcnb.pilot.session import spool
from hpcnb.pilot.session.spool import Spool


@pytest.fixture
async def spooled(tmp_path, monkeypatch):
    """A spool that holds a hundred bytes in memory."""
    monkeypatch.setattr(spool, "MEMORY", 100)
    made = Spool(tmp_path / "spool")
    yield made
    made.close()
    assert not (tmp_path / "spool").exists()


def parts(number):
    return [b"head", b"parent", b"\xff" * number, b"content %d" % number]


async def test_what_memory_does_not_hold_waits_in_a_file(spooled, tmp_path):
    """All messages come in order, whether they waited in memory or in the file, which is empty once they have arrived."""
    for number in range(50):
        spooled.add("iopub", parts(number))
    assert (tmp_path / "spool").stat().st_size > 1000
    seen = []
    while fresh := spooled.after(len(seen), 300):
        seen += fresh
        spooled.add("shell", parts(0)) if len(seen) == 10 else None
    assert [tuple(message) for message in seen[:50]] == [("iopub", parts(number)) for number in range(50)]
    assert (tmp_path / "spool").stat().st_size == 0


async def test_messages_are_kept_until_they_have_arrived(spooled):
    """Who asks again for what he was sent has it again, and nothing else."""
    spooled.add("iopub", parts(1))
    spooled.add("shell", parts(2))
    assert spooled.after(0, 1) == spooled.after(0, 1) == [("iopub", parts(1))]
    assert spooled.after(1, 1000) == [("shell", parts(2))]
    assert (spooled.last, spooled.after(2, 1000)) == (2, [])


async def test_who_waits_is_woken(spooled):
    """A message, or the end, ends the wait; so does its time."""
    await spooled.wait(0, 0.001)
    waiting = asyncio.ensure_future(spooled.wait(0, 60))
    await asyncio.sleep(0)
    spooled.add("iopub", parts(1))
    await waiting
    waiting = asyncio.ensure_future(spooled.wait(1, 60))
    await asyncio.sleep(0)
    spooled.wake()
    await waiting


async def test_a_full_disk(spooled):
    """What cannot be written stays in memory, and what was written can be read meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (800, hard))
    try:
        for number in range(50):
            spooled.add("iopub", parts(number))
        assert spooled.after(0, 10_000) == [("iopub", parts(number)) for number in range(50)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
