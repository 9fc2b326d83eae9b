"""An exception that was raised elsewhere, as the exception of the cell that asked for it."""

from __future__ import annotations

from typing import Any

from IPython.core.error import UsageError

from hpcnb.pilot.values import unpack
from hpcnb.session import Reply

__all__ = ["remote_error", "shown"]


def remote_error(reply: Reply) -> BaseException:
    """Return the exception that a reply tells of: of its own type where possible, shown with the remote traceback.

    Parameters
    ----------
    reply : Reply
        One whose status is not ``ok``.
    """
    if reply.error is not None:
        last = f"{type(reply.error).__name__}: {reply.error}"
        return shown(reply.error, [*reply.traceback, last])
    error = _revived(reply)
    if error is None:
        error = _stand_in(reply)
    return shown(error, list(reply.traceback))


def _revived(reply: Reply) -> BaseException | None:
    """The exception itself, unless it cannot be rebuilt or IPython would not show it as it was shown there."""
    if not reply.exception:
        return None
    try:
        error = unpack([reply.exception])
        faithful = type(error).__name__ == reply.ename and str(error) == reply.evalue
    except Exception:  # its class may not exist here, or its constructor may want more than was pickled
        return None
    if not faithful or not isinstance(error, BaseException):
        return None
    # IPython shows these by rules of its own, which know nothing of a traceback from elsewhere.
    return None if isinstance(error, SyntaxError | BaseExceptionGroup) else error


def _stand_in(reply: Reply) -> BaseException:
    if reply.ename == "UsageError":
        return UsageError(reply.evalue)
    base = KeyboardInterrupt if reply.ename == "KeyboardInterrupt" else Exception
    # The name and the message are all that a notebook shows of an exception.
    stand_in: type[BaseException] = type(reply.ename or "RemoteError", (base,), {"__module__": "hpcnb.remote"})
    return stand_in(reply.evalue)


def shown(error: BaseException, traceback: list[str]) -> BaseException:
    """Make IPython print this traceback in place of our own frames."""
    holder: Any = error
    holder._render_traceback_ = lambda: traceback
    return error
