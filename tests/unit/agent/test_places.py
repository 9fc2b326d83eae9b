"""Where the agent keeps its things, and that nobody else can reach them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hpcnb.agent import places
from hpcnb.agent.places import private_directory
from hpcnb.errors import ConfigError

NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")


def test_a_directory_is_made_private(tmp_path):
    """A directory is made for its owner alone, whatever the umask, with the parents it needs."""
    before = os.umask(0)
    try:
        path = private_directory(tmp_path / "deep" / "er")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_directory_that_exists_is_used(tmp_path):
    """Asking again gives the same directory, with what is in it."""
    private_directory(tmp_path / "mine").joinpath("file").touch()
    assert [p.name for p in private_directory(tmp_path / "mine").iterdir()] == ["file"]


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o777])
def test_an_open_directory_is_refused(tmp_path, mode):
    """A directory that others can look into is refused, with the command that mends it."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine").chmod(mode)
    with pytest.raises(ConfigError, match="open to other users") as caught:
        private_directory(tmp_path / "mine")
    assert caught.value.remedy == f"chmod 700 {tmp_path / 'mine'}"


@as_root
def test_a_foreign_directory_is_refused(tmp_path):
    """A directory that another user made is refused: he may be waiting there."""
    (tmp_path / "his").mkdir(mode=0o700)
    os.chown(tmp_path / "his", NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="not a directory of yours"):
        private_directory(tmp_path / "his")


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_link_is_refused(tmp_path, target):
    """A symbolic link is refused wherever it leads, also to nowhere."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "mine").symlink_to(tmp_path / target)
    with pytest.raises(ConfigError, match="not a directory of yours"):
        private_directory(tmp_path / "mine")


def test_a_file_is_refused(tmp_path):
    """A file in the directory's place is named, not stumbled over."""
    (tmp_path / "mine").touch()
    with pytest.raises(ConfigError, match="not a directory of yours"):
        private_directory(tmp_path / "mine")


@as_root
def test_a_foreign_parent_is_refused(tmp_path):
    """A directory in another user's directory is refused: he could put his own in its place."""
    os.chown(tmp_path, NOBODY, NOBODY)
    try:
        with pytest.raises(ConfigError, match="belongs to another user"):
            private_directory(tmp_path / "mine")
    finally:
        os.chown(tmp_path, 0, 0)


@pytest.mark.parametrize(("mode", "fine"), [(0o777, False), (0o1777, True), (0o755, True), (0o775, True)])
def test_a_parent_that_others_can_change_is_refused(tmp_path, mode, fine):
    """A parent that anybody can write to will do only if, as in /tmp, nobody can rename what is another's."""
    tmp_path.chmod(mode)
    if fine:
        assert private_directory(tmp_path / "mine").is_dir()
    else:
        with pytest.raises(ConfigError, match="others can change"):
            private_directory(tmp_path / "mine")


def test_a_place_that_cannot_be_made_is_named():
    """Where there is no room for a directory the message says so, and what to set."""
    with pytest.raises(ConfigError, match="/proc/hpcnb cannot be made") as caught:
        private_directory(Path("/proc/hpcnb"))
    assert "XDG_RUNTIME_DIR" in caught.value.remedy


def test_a_path_too_long_for_a_socket_is_refused(isolated, monkeypatch):
    """A runtime directory in which no socket could be made is refused before anything is started."""
    long = isolated.folder / ("x" * 90)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(ConfigError, match="too long"):
        places.runtime()


def test_the_longest_path_fits(isolated, monkeypatch):
    """The longest runtime directory that is taken leaves room for the longest name of a socket."""
    room = places.LONGEST - len("/hpcnb")
    long = str(isolated.folder / "x").ljust(room, "x")
    monkeypatch.setenv("XDG_RUNTIME_DIR", long)
    assert len(os.fsencode(places.stream_socket("0" * 16, "scheduler"))) == 107


def test_without_a_runtime_directory(isolated, monkeypatch):
    """Where the system gives no runtime directory, one of the user's own below /tmp is taken, without a warning."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(Path, "is_dir", lambda path: False)
    made = []
    monkeypatch.setattr(places, "private_directory", lambda path: made.append(path) or path)
    assert places.runtime() == Path(f"/tmp/hpcnb-{os.getuid()}")
    assert made


def test_the_systems_runtime_directory(isolated, monkeypatch):
    """A shell without the variable finds the same directory as a desktop session with it."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(Path, "is_dir", lambda path: str(path) == f"/run/user/{os.getuid()}")
    monkeypatch.setattr(places, "private_directory", lambda path: path)
    assert places.runtime() == Path(f"/run/user/{os.getuid()}/hpcnb")


def test_everything_lies_in_private_places(isolated):
    """Socket, lock, log and records lie below directories that only the user can enter."""
    for path in (places.agent_socket(), places.agent_lock(), places.agent_log(), places.records() / "x"):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert isolated.folder in path.parents
