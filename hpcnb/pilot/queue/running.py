"""Carry out one task: a command line, a command line made from a template, or a function."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import shutil
import signal
import string
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hpcnb.pilot.queue.action import read, told, with_values
from hpcnb.pilot.queue.firework import TASKS
from hpcnb.pilot.queue.notes import Notes
from hpcnb.pilot.queue.printed import Logs
from hpcnb.pilot.queue.records import Outcome
from hpcnb.pilot.queue.states import TaskState

LONGEST_ERROR = 4000
ENDED_EARLY = "its job ended before it did"
"""Why a task is Killed that the next job goes on with."""

MOMENT = 0.5
"""Seconds within which we are told, too, when a batch system tells all processes of a job to end, and a command was told first."""
_TERMINATED = (-signal.SIGTERM, 128 + signal.SIGTERM)
_SHELL = "/bin/sh"
_PLAIN = re.compile(r"[\w@%+=:,./ -]+", re.ASCII)
"""Command lines in which nothing is the shell's own."""
_BUILT_IN = frozenset(
    [
        "alias",
        "bg",
        "break",
        "case",
        "cd",
        "command",
        "continue",
        "echo",
        "elif",
        "else",
        "esac",
        "eval",
        "exec",
        "exit",
        "export",
        "false",
        "fg",
        "fi",
        "for",
        "getopts",
        "hash",
        "if",
        "in",
        "jobs",
        "kill",
        "local",
        "printf",
        "pwd",
        "read",
        "readonly",
        "return",
        "set",
        "shift",
        "source",
        "test",
        "then",
        "time",
        "times",
        "trap",
        "true",
        "type",
        "ulimit",
        "umask",
        "unalias",
        "unset",
        "until",
        "wait",
        "while",
    ]
)
_decoded = json.JSONDecoder().raw_decode
_FIREWORK = f"{shlex.quote(sys.executable)} -m hpcnb.pilot.queue.firework"
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM)
"""What Python, or we, handle otherwise than a command expects."""


class Stopped(BaseException):
    """What runs here is to end now: our own job ends."""


def function(call: Callable[[Any], Any]) -> Callable[[int, int, Any, Any], dict[str, Any]]:
    """Carry out tasks by a function of theirs."""

    def run(_id: int, _attempt: int, task: Any, _values: Any) -> dict[str, Any]:
        try:
            said = told(call(task))
        except (Stopped, KeyboardInterrupt):
            raise
        except BaseException as exc:  # whatever the user's function raises is the task's, sys.exit() too
            text = "".join(traceback.format_exception(exc))
            return {"state": TaskState.FAILED, "error": text[-LONGEST_ERROR:]}
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):  # a full disk costs what was printed, no result
                    stream.flush()
        return {"state": TaskState.SUCCEEDED, **said}

    return run


class Commands:
    """Carries out tasks as command lines, each by a shell in a process group of its own.

    Parameters
    ----------
    logs : Logs
    notes : Notes
    environ : mapping
        For all of them.
    script : str
        A template (``analyze -a {a}``) for tasks that are values; empty: they are command lines.
    """

    def __init__(self, logs: Logs, notes: Notes, environ: Mapping[str, str], script: str) -> None:
        self._notes = notes
        # Encoded once, not for each command, which only adds its own.
        self._environ = {os.fsencode(word): os.fsencode(value) for word, value in environ.items()}
        self._path = environ.get("PATH")
        self._script = script
        # What runs, and may be killed from another thread: not once it is reaped, when its number may be anybody's.
        self._runs: tuple[int, int, int] | None = None
        self._unwanted: tuple[int, int] | None = None
        self._killing = threading.Lock()
        self._programs: dict[str, str] = {}
        out, err = logs.files
        self._files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, err, 2),
        ]

    def __call__(self, id: int, attempt: int, task: Any, values: dict[str, Any] | None) -> dict[str, Any]:
        try:
            if not self._script and isinstance(task, dict) and TASKS in task:
                line, values = _FIREWORK, task
            else:
                line = filled(self._script, task) if self._script else command(task)
            pid = self._start(line, id, attempt, values)
        except (ValueError, OSError) as exc:
            return {"state": TaskState.FAILED, "error": _reason(exc, task)}
        code = self._wait(pid, id, attempt)
        if code in _TERMINATED:
            time.sleep(MOMENT)  # until our own signal comes, whose handler raises `Stopped`
        why, lines = _ending(code), []
        try:
            left = self._notes.taken(id, attempt, values)
            lines = [] if why else read(left)
        except (OSError, ValueError) as exc:
            why = why or str(exc)
        if why:
            return {"state": TaskState.FAILED, "code": code, "error": why}
        results = [json.dumps(line["result"]) for line in lines if "result" in line]
        return {"state": TaskState.SUCCEEDED, "code": code, "action": lines, "result": results[-1] if results else None}

    def _start(self, line: str, id: int, attempt: int, values: dict[str, Any] | None) -> int:
        environ = self._environ
        environ[b"HPCNB_TASK"], environ[b"HPCNB_ATTEMPT"] = b"%d" % id, b"%d" % attempt
        self._notes.enter(environ, id, attempt, values)
        for program, words in self._ways(line):
            try:
                return os.posix_spawn(
                    program, words, environ, file_actions=self._files, setpgroup=0, setsigdef=_RESTORED
                )
            except OSError:
                if program == _SHELL:
                    raise
        raise AssertionError("the shell is one of the ways")

    def _ways(self, line: str) -> Iterator[tuple[str, list[bytes]]]:
        """How to start a command: where the shell would do nothing but start it, without a shell, which takes half the time."""
        words = line.split()
        if words and _PLAIN.fullmatch(line) and "=" not in words[0] and words[0] not in _BUILT_IN:
            if words[0] not in self._programs:
                self._programs[words[0]] = shutil.which(words[0], path=self._path) or _SHELL
            if (program := self._programs[words[0]]) != _SHELL:
                yield program, [word.encode() for word in words]
        yield _SHELL, [b"sh", b"-c", os.fsencode(line)]

    def _wait(self, pid: int, id: int, attempt: int) -> int:
        """The exit status."""
        try:
            with self._killing:
                self._runs = (id, attempt, pid)
                if self._unwanted == (id, attempt):
                    _kill(pid)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        finally:
            # Before the process is reaped, so that its group cannot be anybody else's yet: what it has left behind, too.
            with self._killing:
                self._runs = None
            _kill(pid)
            status = os.waitpid(pid, 0)[1]
        return os.waitstatus_to_exitcode(status)

    def kill(self, id: int, attempt: int) -> None:
        """From another thread: end this attempt, at once or as soon as it begins."""
        with self._killing:
            self._unwanted = id, attempt
            if self._runs and self._runs[:2] == (id, attempt):
                _kill(self._runs[2])


def _kill(pid: int) -> None:
    """Kill a process group; its leader may have ended, but is not reaped yet."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has left its own group
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        pass  # by sudo, it is somebody else's, and ends when it ends


def command(task: Any) -> str:
    """A task as the command line that it is; raises `ValueError`."""
    if isinstance(task, str):
        return task
    raise ValueError("it is a value and no command line: it needs func= or script=")


def _reason(exc: Exception, task: Any) -> str:
    if isinstance(exc, OSError) and exc.errno == errno.E2BIG:
        size = len(task) if isinstance(task, str) else 0
        return f"the command line is too long for this system ({size:,} characters): put it into a file"
    return str(exc)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit status {code}" if code else ""
    try:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"killed by signal {-code}"


class _Quoting(string.Formatter):
    """Fills a template with values that the shell takes as single words."""

    def format_field(self, value: Any, format_spec: str) -> str:
        text = json.dumps(value) if isinstance(value, dict | list | bool | None) else format(value, format_spec)
        return shlex.quote(text)


def filled(script: str, task: Any) -> str:
    """A template with a task's values, each quoted for the shell.

    Raises
    ------
    ValueError
        A value is missing; it is named.

    Examples
    --------
    >>> filled("analyze -a {a} -b {b:.1f}", {"a": "x; rm -rf /", "b": 2})
    "analyze -a 'x; rm -rf /' -b 2.0"
    """
    values: Mapping[str, Any] = task if isinstance(task, dict) else {}
    row: Sequence[Any] = task if isinstance(task, list) else () if isinstance(task, dict) else (task,)
    try:
        return _Quoting().vformat(script, row, values)
    except (KeyError, IndexError) as exc:
        there = ", ".join(values) or f"{len(row)} without a name"
        raise ValueError(f"the script's {{{exc.args[0]}}} has no value in this task; it has {there}") from None


class Attempt:
    """Carries out tasks one after the other, and says how each ended.

    Parameters
    ----------
    run : callable
        By `function`, or `Commands`.
    logs : Logs
    calm : callable
        Called when one has ended: from then on `Stopped` is not to be raised, since what it has come to would be lost.
    """

    def __init__(
        self, run: Callable[[int, int, Any, Any], dict[str, Any]], logs: Logs, calm: Callable[[], None]
    ) -> None:
        self._run = run
        self._logs = logs
        self._calm = calm

    def __call__(self, id: int, attempt: int, payload: str, values: dict[str, Any] | None = None) -> Outcome:
        began = time.time()
        try:
            try:
                self._logs.begin(id, attempt)
                task, _ = _decoded(payload)
                ended = self._run(id, attempt, with_values(task, values), values)
            finally:
                self._calm()
        except Stopped:
            ended = {"state": TaskState.KILLED, "error": ENDED_EARLY}
        except json.JSONDecodeError as exc:
            ended = {"state": TaskState.FAILED, "error": f"the task is no JSON: {exc}"}
        output = self._logs.moved()
        if ended.get("code") and (said := self._logs.last_line(*output[2:])):
            ended["error"] += f": {said}"
        return Outcome(task=id, attempt=attempt, began=began, ended=time.time(), output=output, **ended)
