"""Files and directories as values: whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hpcnb.tasks.directions import Kind
from hpcnb.tasks.staging import Content


@pytest.fixture
def folder(tmp_path):
    """A directory with a file and a directory in it."""
    (tmp_path / "made" / "deep").mkdir(parents=True)
    (tmp_path / "made" / "deep" / "file").write_text("new")
    (tmp_path / "made" / "script").write_text("#!")
    (tmp_path / "made" / "script").chmod(0o750)
    return tmp_path


def test_what_is_read_is_written_again(folder):
    """A file with its permissions, and a directory with all that is in it, in the place of what was there."""
    Content.read(folder / "made" / "script", Kind.FILE).write(folder / "copy")
    assert ((folder / "copy").read_text(), (folder / "copy").stat().st_mode & 0o777) == ("#!", 0o750)
    (folder / "there").mkdir()
    (folder / "there" / "old").touch()
    Content.read(folder / "made", Kind.DIRECTORY).write(folder / "there")
    assert sorted(path.name for path in (folder / "there").rglob("*")) == ["deep", "file", "script"]
    assert sorted(path.name for path in folder.iterdir()) == ["copy", "made", "there"]


def test_an_empty_file_is_as_any_new_one(folder):
    """It has the permissions that the user's umask leaves."""
    Content(kind=Kind.FILE).write(folder / "empty")
    (folder / "usual").touch()
    assert (folder / "empty").stat().st_mode == (folder / "usual").stat().st_mode


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.DIRECTORY])
def test_what_cannot_be_written_leaves_what_was_there(folder, monkeypatch, kind):
    """A full disk, at the beginning or at the last step: the old file or directory stays, and nothing beside it."""
    place = folder / "there"
    if kind is Kind.FILE:
        place.write_text("old")
    else:
        place.mkdir()
        (place / "old").touch()
    content = Content.read(folder / "made" / "script" if kind is Kind.FILE else folder / "made", kind)
    rename = Path.rename

    def full(path, target):
        if path.name == "new":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        content.write(place)
    monkeypatch.undo()
    assert place.read_text() == "old" if kind is Kind.FILE else [path.name for path in place.iterdir()] == ["old"]
    assert sorted(path.name for path in folder.iterdir()) == ["made", "there"]
