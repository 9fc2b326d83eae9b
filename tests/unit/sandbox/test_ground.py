"""What a sandbox makes on its machine, and what it leaves alone."""

from __future__ import annotations

import os
import socket

import pytest

from hpcnb.errors import ConfigError
from hpcnb.sandbox import ground
from hpcnb.sandbox.plan import Paths


def mode(path):
    return path.stat().st_mode & 0o777


def test_directory_is_private(tmp_path):
    """All that is made is the owner's alone, its parents too, whatever the umask."""
    before = os.umask(0)
    try:
        paths = Paths(tmp_path / "new" / "box")
        ground.claim(paths)
        ground.claim(paths)
        ground.write(paths.record, b"{}")
    finally:
        os.umask(before)
    assert [mode(path) for path in (paths.directory.parent, paths.directory, paths.etc, paths.logs)] == [0o700] * 4
    assert [mode(path) for path in (paths.lock, paths.record)] == [0o600] * 2


def test_open_directory_is_closed(tmp_path):
    """An empty directory that others could read is made private."""
    tmp_path.chmod(0o755)
    ground.claim(Paths(tmp_path))
    assert mode(tmp_path) == 0o700


def test_directory_with_other_things_is_refused(tmp_path):
    """Nobody's home is taken for a sandbox."""
    (tmp_path / "thesis.tex").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(ConfigError, match="holds other things"):
        ground.claim(Paths(tmp_path))
    assert mode(tmp_path) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_link_is_refused(tmp_path):
    """A link could lead where somebody else wants the keys to be."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with pytest.raises(ConfigError, match="not a directory of yours"):
        ground.claim(Paths(tmp_path / "link"))


def test_file_is_refused(tmp_path):
    """A file of that name is an error of ours, not Python's."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not a directory of yours"):
        ground.claim(Paths(tmp_path / "file"))


def test_ports_are_free_and_different():
    """Nobody listens on any of them, and no connection will be given one."""
    ports = ground.free_ports(40)
    assert len({*ports}) == 40
    assert max(ports) < 32768
    for port in ports[:5]:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_sockets_of_a_long_directory_lie_elsewhere(tmp_path):
    """Where the name is too long for a socket, a short private directory is made for them."""
    paths = Paths(tmp_path / ("x" * 100))
    paths.directory.mkdir()
    run = ground.run_directory(paths)
    try:
        assert mode(run) == 0o700
        assert run.parent != paths.directory
        assert len(os.fsencode(run)) < 30
    finally:
        run.rmdir()


@pytest.mark.parametrize("text", ["", "{", "{}", "\0"])
def test_broken_record_counts_as_none(tmp_path, text):
    """A record that cannot be read does not stop anybody from starting anew."""
    paths = Paths(tmp_path)
    assert ground.recorded(paths) is None
    paths.record.write_text(text, encoding="utf-8")
    assert ground.recorded(paths) is None


def test_place_below_a_file_is_refused(tmp_path):
    """A directory that cannot be made is an error that says so."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        ground.claim(Paths(tmp_path / "file" / "box"))
