"""Exceptions from elsewhere: their type, their message and their traceback are shown as they were there."""

from __future__ import annotations

import pytest
from IPython.core.error import UsageError

from hpcnb.errors import TaskTimeout
from hpcnb.notebook.remote_error import remote_error
from hpcnb.pilot.values import dump
from hpcnb.session import Reply

TRACEBACK = ("Traceback", "line 3")


class Stubborn(Exception):
    """One that cannot be rebuilt: its constructor wants more than it keeps."""

    def __init__(self, code, reason):
        super().__init__(reason)


def reply_of(error, **more):
    """What a session says when a cell raises."""
    return Reply(
        status="error",
        ename=type(error).__name__,
        evalue=str(error),
        traceback=TRACEBACK,
        exception=bytes(dump(error)[0]),
        **more,
    )


@pytest.mark.parametrize(
    "error", [ValueError("x", 3), KeyError("k"), KeyboardInterrupt(), SystemExit(3), StopIteration()]
)
def test_an_exception_keeps_its_type(error):
    """It can be caught by its type, has its arguments, and shows the remote traceback."""
    found = remote_error(reply_of(error))
    assert type(found) is type(error)
    assert found.args == error.args
    assert found._render_traceback_() == list(TRACEBACK)


@pytest.mark.parametrize(
    "reply",
    [
        reply_of(Stubborn(1, "because")),
        Reply(status="error", ename="Foreign", evalue="because", traceback=TRACEBACK),
        Reply(status="error", ename="Foreign", evalue="because", traceback=TRACEBACK, exception=b"nonsense"),
        Reply(status="error", ename="Foreign", evalue="because", traceback=TRACEBACK, exception=bytes(dump(3)[0])),
    ],
)
def test_what_cannot_be_rebuilt_has_a_stand_in(reply):
    """Its class has the same name, and it says the same."""
    found = remote_error(reply)
    assert (type(found).__name__, str(found)) == (reply.ename, "because")
    assert found._render_traceback_() == list(TRACEBACK)


@pytest.mark.parametrize(
    "error", [SyntaxError("bad"), IndentationError("deep"), ExceptionGroup("many", [ValueError()])]
)
def test_what_ipython_shows_by_rules_of_its_own_has_a_stand_in(error):
    """Else the remote traceback would be replaced by one of our frames."""
    found = remote_error(reply_of(error))
    assert type(found).__name__ == type(error).__name__
    assert not isinstance(found, SyntaxError | BaseExceptionGroup)


def test_a_usage_error_is_ipythons():
    """It is printed as one line, by IPython."""
    assert type(remote_error(Reply(status="error", ename="UsageError", evalue="no such magic"))) is UsageError


def test_an_error_of_ours_comes_with_what_is_known():
    """Its message follows the traceback of the place where the cell was."""
    error = TaskTimeout("too long", remedy="Be quick.")
    found = remote_error(Reply(status="error", ename="TaskTimeout", evalue="", traceback=TRACEBACK, error=error))
    assert found is error
    assert found._render_traceback_() == [*TRACEBACK, "TaskTimeout: too long\n→ Be quick."]
