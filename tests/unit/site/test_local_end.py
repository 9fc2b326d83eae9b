"""The end of this machine's shell while a command is being started."""

from __future__ import annotations

import asyncio
import multiprocessing

import pytest

from hpcnb.site.local import LocalShell

TURNS = 20
"""Turns of the event loop after which the start is given up: some of them are in the middle of it."""


def begin_and_end(turns: int) -> None:
    """Start a command, give it up after some turns of the loop, close the shell, end the loop."""

    async def main() -> None:
        shell = LocalShell()
        running = asyncio.create_task(shell.run(["sleep", "60"]))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await shell.close()

    asyncio.run(main())


@pytest.mark.parametrize("turns", range(TURNS))
def test_the_end_of_the_loop_waits_for_no_half_started_command(turns: int) -> None:
    """Whenever a command is given up, the loop can be ended: asyncio alone would wait for pipes that it never opened."""
    process = multiprocessing.get_context("spawn").Process(target=begin_and_end, args=(turns,))
    process.start()
    process.join(20)
    hung = process.is_alive()
    if hung:
        process.kill()
        process.join()
    assert not hung
    assert process.exitcode == 0
