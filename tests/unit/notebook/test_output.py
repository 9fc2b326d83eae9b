"""Output is shown under the cell that caused it, in a notebook and in a terminal."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell

from hpcnb.notebook.output import view_for
from hpcnb.session import Message


class Wire:
    """Keeps what would be sent to the front end."""

    def __init__(self):
        self.sent = []

    def send(self, socket, kind, content, *, parent, ident, buffers):
        assert socket == "iopub"
        self.sent.append((kind, content, parent["header"]["msg_id"], buffers))


class Kernel:
    """As much of a kernel as a view needs."""

    def __init__(self):
        self.session, self.iopub_socket = Wire(), "iopub"
        self.parent = {"header": {"msg_id": "first"}}

    def get_parent(self):
        return self.parent


@pytest.fixture
def kernel():
    """A kernel that runs the cell ``first``."""
    return Kernel()


@pytest.fixture
def view(kernel):
    """The view of that cell."""
    shell = SimpleNamespace(kernel=kernel, displayhook=SimpleNamespace(prompt_count=7))
    return view_for(shell, "`%hpc logs main`")


def message(kind, buffers=(), **content):
    """A message of a session."""
    return Message(seq=1, cell="c", type=kind, content=content, buffers=buffers)


def test_output_goes_to_the_cell_for_which_the_view_was_made(view, kernel):
    """Also from another thread, and when another cell runs by then."""
    kernel.parent = {"header": {"msg_id": "second"}}
    show = threading.Thread(target=view.show, args=[message("stream", name="stdout", text="x\n")])
    show.start()
    show.join()
    assert kernel.session.sent == [("stream", {"name": "stdout", "text": "x\n"}, "first", None)]


def test_a_result_has_the_notebooks_count(view, kernel):
    """Out[n] is the notebook's."""
    view.show(message("execute_result", execution_count=99, data={"text/plain": "1"}, metadata={}))
    assert kernel.session.sent[0][1]["execution_count"] == 7


def test_what_is_not_to_be_seen_is_not_shown(view, kernel):
    """Replies and questions are for others."""
    for kind in ("reply", "input_request", "status", "unknown"):
        view.show(message(kind))
    assert kernel.session.sent == []


def test_binary_parts_come_along(view, kernel):
    """A widget's arrays are buffers."""
    view.show(message("comm_msg", buffers=(b"\x00\x01",), comm_id="1", data={}))
    assert kernel.session.sent[0][3] == [b"\x00\x01"]


def test_a_flood_is_one_display_that_is_updated(view, kernel):
    """The count and the end are replaced in place, and the way to the whole is named."""
    view.show(message("flood", lines=1, chars=10, tail="a"))
    view.show(message("flood", lines=99_000, chars=500_000, tail="y\nz"))
    view.show(message("flood", lines=0, chars=500_000, tail="zz"))
    texts = [content["data"]["text/plain"] for _, content, *_ in kernel.session.sent]
    assert [kind for kind, *_ in kernel.session.sent] == ["display_data", "update_display_data", "update_display_data"]
    assert texts[1] == "… 99,000 lines more, all of them: `%hpc logs main`\ny\nz"
    assert texts[2].startswith("… 500,000 characters more, all of them")
    assert {content["transient"]["display_id"] for _, content, *_ in kernel.session.sent} == {"hpcnb-flood-c"}


@pytest.fixture
def terminal():
    """The view of a cell in IPython without a kernel."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    yield view_for(shell, "`%hpc logs main`")
    InteractiveShell.clear_instance()


def test_a_terminal_shows_what_it_can(terminal, capsys):
    """Text is printed, displays are printed as text, errors go to stderr; the rest is left out."""
    terminal.show(message("stream", name="stdout", text="out\n"))
    terminal.show(message("stream", name="stderr", text="err\n"))
    terminal.show(
        message("execute_result", data={"text/plain": "42", "image/png": "…"}, metadata={}, execution_count=1)
    )
    terminal.show(message("error", ename="E", evalue="v", traceback=["Traceback", "E: v"]))
    terminal.show(message("comm_open", comm_id="1"))
    terminal.say("said")
    shown = capsys.readouterr()
    assert shown.out == "out\n42\n"
    assert shown.err == "err\nTraceback\nE: v\nsaid\n"
