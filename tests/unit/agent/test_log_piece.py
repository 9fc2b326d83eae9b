"""A log read piece by piece: no gap, no duplicate, no character cut in two; and nothing but logs."""

from __future__ import annotations

import pytest

from hpcnb.agent.remains import log_piece
from hpcnb.site.local import LocalShell

TEXT = "".join(f"{n} grün ∑ 🙂\n" for n in range(200))


@pytest.fixture
def run(tmp_path):
    """A run's folder, beside that of a node that was added and a stranger's."""
    for folder in ("run/logs", "run-1/logs", "other/logs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "run/logs/worker.log").write_text(TEXT)
    (tmp_path / "run-1/job.log").write_text("added\n")
    (tmp_path / "other/job.log").write_text("of somebody else\n")
    (tmp_path / "run/job.sh").write_text("no log\n")
    return str(tmp_path / "run")


async def follow(run, most, offset=0):
    """All pieces from an offset to the end."""
    shell, pieces = LocalShell(), []
    while not pieces or pieces[-1]["text"]:
        pieces.append(await log_piece(shell, run, "logs/worker.log", offset, most))
        offset = pieces[-1]["next"]
    return pieces


@pytest.mark.parametrize("most", [1, 5, 7, 100, 10**6])
async def test_no_gap_no_duplicate(run, most):
    """Whatever the size of the pieces, together they are the log, and each begins where the last one ended."""
    pieces = await follow(run, most)
    assert "".join(piece["text"] for piece in pieces) == TEXT
    assert [piece["offset"] for piece in pieces[1:]] == [piece["next"] for piece in pieces[:-1]]


async def test_from_so_many_bytes_before_the_end(run):
    """A look at the end begins with a whole character, at the byte that is told."""
    shell, data = LocalShell(), TEXT.encode()
    for back in range(1, 20):
        piece = await log_piece(shell, run, "logs/worker.log", -back, 100)
        assert (piece["text"], piece["next"]) == (data[-back:].decode(errors="ignore"), len(data))
        assert data[piece["offset"] :].decode() == piece["text"]
    assert (await log_piece(shell, run, "logs/worker.log", -(10**6), 10**6))["text"] == TEXT


async def test_a_character_that_is_not_complete_comes_later(run, tmp_path):
    """While a character is being written it is not shown; what is none at all is shown as such."""
    log, shell = tmp_path / "run/logs/worker.log", LocalShell()
    log.write_bytes("a∑".encode()[:-1])
    first = await log_piece(shell, run, "logs/worker.log", 0, 100)
    assert (first["text"], first["next"]) == ("a", 1)
    log.write_bytes("a∑\n".encode() + b"\xff\x1b[31m")
    assert (await log_piece(shell, run, "logs/worker.log", 1, 100))["text"] == "∑\n\ufffd\x1b[31m"


async def test_nothing_but_logs(run):
    """The logs of a run and of its added nodes can be read, and no other file."""
    shell = LocalShell()
    assert (await log_piece(shell, run, "run-1/job.log", 0, 100))["text"] == "added\n"
    for name in ("job.log", "job.sh", "../other/job.log", "other/job.log", "logs/../../other/job.log", "run-2/job.log"):
        assert await log_piece(shell, run, name, 0, 100) == {}
        assert await log_piece(shell, run, name, -5, 100) == {}
