"""What every shell promises, over each that there is."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from hpcnb.errors import ConnectionFailed
from hpcnb.site import command
from hpcnb.site.local import LocalShell
from hpcnb.site.ssh import SSHShell
from tests.site.sshd import User, echo, ending, say, until

pytestmark = pytest.mark.site

HOSTILE = [
    "a b",
    "'",
    '"',
    "$HOME",
    "`id`",
    "!!",
    "\\",
    "\\n",
    "a\nb",
    "\n",
    "",
    "*",
    "~",
    "é\x81\u2028",
    "-n",
    "#",
    "\t",
    "%s",
]


@pytest.fixture(params=["local", "ssh"])
async def shell(request):
    """Each kind of shell in turn."""
    if request.param == "local":
        shell = LocalShell()
    else:
        server = request.getfixturevalue("shared_sshd")
        shell = await SSHShell.connect(server.name, ask=User(), config_file=server.config)
    yield shell
    await shell.close()


async def ended(pid: int) -> None:
    """Wait until a process has ended, and been reaped or at least left for dead."""
    await until(lambda: not alive(pid))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


async def received(reader: asyncio.StreamReader, size: int) -> bytes:
    """So many bytes of a connection, or all until its end."""
    data = b""
    async with asyncio.timeout(30):
        while len(data) < size and (piece := await reader.read(size - len(data))):
            data += piece
    return data


async def test_a_command_gets_its_words_unchanged(shell):
    """No shell on the way changes a word, whatever is in it."""
    done = await shell.run(["printf", "%s\\0", *HOSTILE])
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in HOSTILE]
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("argv", "error"), [([], ValueError), (["a\0b"], ValueError), ([""], ValueError), ("ls", TypeError)]
)
async def test_a_command_that_cannot_be_is_refused(shell, argv, error):
    """A NUL, an empty command or a string instead of a list is the caller's mistake."""
    with pytest.raises(error):
        await shell.run(argv)


async def test_a_command_tells_its_end(shell):
    """The exit status, stdout and stderr come back apart."""
    done = await shell.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.returncode, done.out, done.err) == (3, "out\n", "err\n")


async def test_a_command_that_a_signal_ended_tells_which(shell):
    """As in Python, the status of a command that was killed is the signal's number, negative."""
    assert (await shell.run(["sh", "-c", "kill -9 $$"])).returncode == -9


async def test_a_missing_program_is_an_exit_status(shell):
    """As in every shell, 127 says that there is no such program, and 126 that it cannot be run."""
    missing, barred = await asyncio.gather(shell.run(["hpcnb-no-such-program"]), shell.run(["/etc/passwd"]))
    assert (missing.returncode, barred.returncode) == (127, 126)
    assert "hpcnb-no-such-program" in missing.err


async def test_what_a_command_makes_is_private(shell, tmp_path):
    """Commands run with umask 077."""
    await shell.run(["touch", str(tmp_path / "made")])
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600


async def test_input_and_output_flow_together(shell):
    """A command may write while it reads, more than any buffer holds, and every byte value passes."""
    data = bytes(range(256)) * 20_000
    done = await shell.run(["tee", "/dev/stderr"], stdin=data)
    assert done.stdout == data
    assert done.stderr == data


async def test_input_need_not_be_read(shell):
    """A command that ends without reading its input is no error, and harms no other."""
    for _ in range(5):
        assert (await shell.run(["true"], stdin=bytes(3_000_000))).returncode == 0
    assert (await shell.run(["echo", "well"])).out == "well\n"


async def test_a_flood_is_an_error(shell, monkeypatch):
    """A command that writes more than memory should hold is ended, and the error names it."""
    monkeypatch.setattr(command, "OUTPUT_LIMIT", 1 << 20)
    with pytest.raises(OSError, match=r"MiB of output on .*: yes") as caught:
        await shell.run(["yes"])
    assert caught.value.errno == errno.EFBIG


async def test_a_slow_command_is_ended(shell, tmp_path):
    """At its time limit a command dies with its children, and the error names it."""
    script = f"sleep 1000 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/self; wait"
    with pytest.raises(TimeoutError, match=f"1 s on {shell.name}: sh -c"):
        await shell.run(["sh", "-c", script], timeout=1)
    for name in "self", "child":
        await ended(int((tmp_path / name).read_text()))


async def test_a_cancelled_command_is_ended(shell, tmp_path):
    """Whoever gives up waiting leaves no process behind."""
    os.mkfifo(tmp_path / "pipe")
    task = asyncio.create_task(shell.run(["sh", "-c", f"echo $$ > {tmp_path}/pipe; sleep 1000"]))
    pid = int(await asyncio.to_thread((tmp_path / "pipe").read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended(pid)


async def test_a_command_that_left_children_behind_is_ended(shell, tmp_path):
    """Output that a child holds open is waited for, and at the time limit the child dies too."""
    with pytest.raises(TimeoutError):
        await shell.run(["sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/child"], timeout=1)
    await ended(int((tmp_path / "child").read_text()))


async def test_many_commands_at_once(shell):
    """Commands do not wait for each other, nor get each other's output."""
    done = await asyncio.gather(*(shell.run(["sh", "-c", f"cat; echo {n}"], stdin=b"in ") for n in range(20)))
    assert [each.out for each in done] == [f"in {n}\n" for n in range(20)]


@pytest.mark.parametrize("size", [0, 1, 32768, 3_000_001])
async def test_a_file_comes_back_as_written(shell, tmp_path, size):
    """Files of all sizes are written and read whole, and nothing else is left beside them."""
    data = os.urandom(size)
    await shell.write(str(tmp_path / "file"), data)
    assert await shell.read(str(tmp_path / "file")) == data
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [
        (0, 3, b"012"),
        (7, None, b"789"),
        (7, 99, b"789"),
        (-2, None, b"89"),
        (-4, 2, b"67"),
        (-99, 2, b"01"),
        (99, None, b""),
        (3, 0, b""),
    ],
)
async def test_a_part_of_a_file(shell, tmp_path, offset, limit, expected):
    """Offset and limit cut a part out, from the end too, and beyond the end there is nothing."""
    (tmp_path / "file").write_bytes(b"0123456789")
    assert await shell.read(str(tmp_path / "file"), offset=offset, limit=limit) == expected


async def test_a_file_that_hides_its_size(shell):
    """Files of /proc say that they are empty; their content is read all the same."""
    assert b"Linux" in await shell.read("/proc/version")
    assert await shell.read("/proc/version", offset=2, limit=3) == b"nux"


@pytest.mark.parametrize("mode", [0o600, 0o700, 0o644, 0o400])
async def test_a_file_has_the_mode_asked_for(shell, tmp_path, mode):
    """The mode is the one given, whatever the site's umask is and whatever stood there before."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o666)
    await shell.write(str(tmp_path / "file"), b"new", mode=mode)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    assert (tmp_path / "file").read_text() == "new"


async def test_a_file_is_replaced_not_rewritten(shell, tmp_path):
    """Who has the old file open goes on reading the old one."""
    (tmp_path / "file").write_text("old")
    with (tmp_path / "file").open() as old:
        await shell.write(str(tmp_path / "file"), b"new")
        assert old.read() == "old"


async def test_files_of_any_name(shell, tmp_path):
    """Spaces, quotes, newlines and bytes beyond UTF-8 are fine in a path."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/a '\n\xff.d")
    await shell.mkdir(path)
    await shell.write(f"{path}/{'n' * 200}", b"x")
    assert await shell.read(f"{path}/{'n' * 200}") == b"x"


async def test_a_missing_file_is_an_error_with_its_path(shell, tmp_path):
    """The errno is the site's, and the error names the path."""
    for attempt in shell.read(str(tmp_path / "no" / "file")), shell.write(str(tmp_path / "no" / "file"), b""):
        with pytest.raises(FileNotFoundError) as caught:
            await attempt
        assert caught.value.filename == str(tmp_path / "no" / "file")


async def test_a_failed_write_leaves_nothing(shell, tmp_path):
    """When the last step fails, the new file is gone and the old one stays."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(OSError, match="taken"):
        await shell.write(str(tmp_path / "taken"), b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one MiB."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    (disk := tmp_path / "disk").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


async def test_a_full_disk_is_named(shell, small_disk):
    """A disk without space is ENOSPC with the path; what was there is still there, and nothing half-written."""
    (small_disk / "file").write_text("old")
    with pytest.raises(OSError, match=str(small_disk / "file")) as caught:
        await shell.write(str(small_disk / "file"), bytes(2 << 20))
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in small_disk.iterdir()] == ["file"]
    assert (small_disk / "file").read_text() == "old"


async def test_a_directory_is_made_with_its_parents(shell, tmp_path):
    """Each that is missing is made private; one that exists stays as it is."""
    (tmp_path / "old").mkdir(mode=0o755)
    await shell.mkdir(str(tmp_path / "old" / "a" / "b"))
    await shell.mkdir(str(tmp_path / "old" / "a" / "b"))
    await shell.mkdir(str(tmp_path / "old"))
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("old", "old/a", "old/a/b")]
    assert modes == [0o755, 0o700, 0o700]


async def test_a_directory_cannot_replace_a_file(shell, tmp_path):
    """A file in the way is an error that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError) as caught:
        await shell.mkdir(str(tmp_path / "file"))
    assert caught.value.filename == str(tmp_path / "file")


async def test_files_at_once(shell, tmp_path):
    """Many files may be written and read at the same time."""
    contents = {str(tmp_path / f"file{n}"): os.urandom(100_000 + n) for n in range(10)}
    await asyncio.gather(*(shell.write(path, data) for path, data in contents.items()))
    assert await asyncio.gather(*map(shell.read, contents)) == list(contents.values())


async def test_a_directory_is_listed(shell, tmp_path):
    """Every name is told once, in order, more of them than one answer holds; a missing directory is an error."""
    names = sorted([f"{number:03}-{'x' * 90}" for number in range(300)] + [".hidden", "é", "a b"])
    for name in names:
        (tmp_path / name).touch()
    assert await shell.list(str(tmp_path)) == names
    with pytest.raises(FileNotFoundError):
        await shell.list(str(tmp_path / "none"))


async def test_a_file_is_removed(shell, tmp_path):
    """It is gone afterwards; a second time is an error."""
    (tmp_path / "a").touch()
    await shell.remove(str(tmp_path / "a"))
    assert await shell.list(str(tmp_path)) == []
    with pytest.raises(FileNotFoundError):
        await shell.remove(str(tmp_path / "a"))


async def test_a_pipe_speaks_to_a_command(shell):
    """What is written to the pipe is the command's input, unchanged; what is read is all that it writes."""
    pipe = await shell.pipe(["sh", "-c", "printf '<%s>' \"$1\"; cat; echo end >&2", "sh", "a 'b'"])
    with ending(pipe) as (reader, writer):
        data = os.urandom(3_000_000)

        async def send():
            await say(writer, data)
            writer.write_eof()

        _, came = await asyncio.gather(send(), received(reader, 2**30))
    assert came.partition(b"<a 'b'>")[2] == data + b"end\n"


async def test_a_command_ends_with_its_pipe(shell):
    """A command that waits for input sees its end when the pipe is closed, and nothing of it is left."""
    with ending(await shell.pipe(["sh", "-c", "echo $$; exec cat"])) as (reader, _):
        heard = b""
        while not heard.endswith(b"\n") or not heard.split()[-1].isdigit():
            heard += await received(reader, 1)
        pid = int(heard.split()[-1])
        assert alive(pid)
    await ended(pid)


async def test_a_stream_carries_bytes_both_ways(shell, service):
    """What is sent through a dialled connection arrives, more than all buffers hold, and comes back."""
    data = os.urandom(5_000_000)
    with ending(await shell.dial(*await service(echo))) as (reader, writer):
        sending = asyncio.create_task(say(writer, data))
        assert await received(reader, len(data)) == data
        await sending


async def test_a_stream_may_end_one_way(shell, service):
    """The end of what is sent arrives there while the answer still comes here."""
    with ending(await shell.dial(*await service(echo))) as (reader, writer):
        writer.write(b"last words")
        writer.write_eof()
        assert await received(reader, 100) == b"last words"


async def test_a_stream_ends_here_when_it_ends_there(shell, service):
    """What the service sent before it closed arrives, then the end."""

    async def farewell(reader, writer):
        writer.write(b"bye")
        await writer.drain()

    with ending(await shell.dial(*await service(farewell))) as (reader, _):
        assert await received(reader, 100) == b"bye"


@pytest.mark.parametrize("half", [False, True])
async def test_a_stream_ends_there_when_it_ends_here(shell, service, half):
    """The service sees the end of a connection that its owner closes, at once or one way after the other."""
    told = asyncio.Event()

    async def insist(reader, writer):
        while await reader.read(100):
            pass
        with contextlib.suppress(ConnectionError):
            while True:  # the end one way is no end: only a failing write tells
                writer.write(b"still there?")
                await writer.drain()
                await asyncio.sleep(0.01)
        told.set()

    reader, writer = await shell.dial(*await service(insist))
    if half:
        writer.write_eof()
        await received(reader, 1)
    writer.close()
    async with asyncio.timeout(30):
        await told.wait()


async def test_a_stream_holds_back_a_fast_sender(shell, service):
    """While the service does not read, the sender waits, and memory stays as it is."""
    reading = asyncio.Event()

    async def hesitate(reader, writer):
        await reading.wait()
        while await reader.read(1 << 16):
            pass

    with ending(await shell.dial(*await service(hesitate))) as (_, writer):
        sending = asyncio.create_task(say(writer, bytes(32 << 20)))
        done, _ = await asyncio.wait([sending], timeout=0.5)
        assert not done
        reading.set()
        await asyncio.wait_for(sending, 60)


async def test_a_closed_port_is_named(shell):
    """Where nothing listens, the error says host and port, and where it was tried from."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(ConnectionFailed, match=f"127.0.0.1 port {port}") as caught:
            await shell.dial("127.0.0.1", port)
    assert caught.value.where == shell.name
    assert "refused" in caught.value.evidence


async def test_closing_ends_everything(shell, service):
    """After `close` dialled connections see their end, and every method says that it is over."""
    address = await service(echo)
    assert shell.alive
    with ending(await shell.dial(*address)) as (reader, _):
        await shell.close()
        assert not shell.alive
        assert await received(reader, 1) == b""
    for attempt in shell.run(["true"]), shell.dial(*address):
        with pytest.raises(ConnectionFailed, match="closed"):
            await attempt
    await shell.close()
