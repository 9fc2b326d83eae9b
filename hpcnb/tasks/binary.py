"""Programs as tasks: a command line made of the arguments, its output in files, its exit status."""

from __future__ import annotations

import functools
import inspect
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from hpcnb.errors import TaskFailed
from hpcnb.tasks.task import Task, task

__all__ = ["Command", "binary", "container"]

ENGINES = ("apptainer", "singularity")
LAST_WORDS = 2000
"""Bytes of what a failed program said that its error shows."""


class Command:
    """Runs a program with the arguments of a function.

    Parameters
    ----------
    program : str
    args : str, optional
        Its arguments, with ``{name}`` for those of the function; a value is one word, whatever is in it. By default all of them, in order.
    working_dir : str, optional
        By default where the worker runs.
    stdin, stdout, stderr : str
        The parameters whose files they are read from and written to.
    prefixes : mapping of str to str
        What stands before the value of a parameter where `args` is not given.
    fail : bool
        Whether an exit status other than 0 is an error.
    before : callable, optional
        Gives the words before the program, from the arguments.
    environ : callable, optional
        Gives its environment; by default the worker's.
    """

    def __init__(
        self,
        program: str,
        *,
        args: str | None = None,
        working_dir: str | None = None,
        stdin: str = "",
        stdout: str = "",
        stderr: str = "",
        prefixes: Mapping[str, str] | None = None,
        fail: bool = True,
        before: Callable[[dict[str, Any]], Sequence[str]] | None = None,
        environ: Callable[[], dict[str, str]] | None = None,
    ) -> None:
        self.program, self.args, self.working_dir = program, args, working_dir
        self.stdin, self.stdout, self.stderr, self.fail = stdin, stdout, stderr, fail
        self.prefixes = prefixes or {}
        self.before, self.environ = before, environ

    def words(self, arguments: dict[str, Any]) -> list[str]:
        """The command line for the arguments of a call.

        Examples
        --------
        >>> Command("grep", args="-c {word} {path}").words({"word": "a b", "path": "/tmp/x"})
        ['grep', '-c', 'a b', '/tmp/x']
        """
        if self.args is None:
            streams = (self.stdin, self.stdout, self.stderr)
            given = [
                f"{self.prefixes.get(name, '')}{value}" for name, value in arguments.items() if name not in streams
            ]
        else:
            given = [word.format_map(arguments) for word in shlex.split(self.args)]
        return [*(self.before(arguments) if self.before else ()), self.program, *given]

    def run(self, arguments: dict[str, Any]) -> int:
        """Run it; gives its exit status.

        Raises
        ------
        TaskFailed
            It cannot be started, or its exit status is an error.
        """
        words, environ = self.words(arguments), self.environ() if self.environ else None
        with (
            tempfile.TemporaryFile() as said,
            _file(arguments, self.stdin, "rb") as read,
            _file(arguments, self.stdout) as out,
            _file(arguments, self.stderr) as err,
        ):
            try:
                done = subprocess.run(
                    words,
                    cwd=self.working_dir,
                    env=environ,
                    stdin=read or subprocess.DEVNULL,
                    stdout=out,
                    stderr=err or said,
                    check=False,
                )
            except OSError as exc:
                raise TaskFailed(f"{words[0]} cannot be run: {exc.strerror}", where=socket.gethostname()) from exc
            if done.returncode and self.fail:
                raise failed(words, done.returncode, _last_words(err or said))
        return done.returncode


def failed(words: Sequence[str], code: int, said: str) -> TaskFailed:
    """The error of a program that ended with an exit status, or by a signal."""
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"
    return TaskFailed(f"{shlex.join(words)[:200]} {how}", where=socket.gethostname(), evidence=said.strip())


class _file:  # noqa: N801 - used like a function
    """The file of a parameter, open to be written and read; None where there is no such parameter."""

    def __init__(self, arguments: dict[str, Any], name: str, mode: str = "w+b") -> None:
        self._path, self._mode = arguments[name] if name else None, mode
        self._file: IO[bytes] | None = None

    def __enter__(self) -> IO[bytes] | None:
        if self._path is not None:
            self._file = open(self._path, self._mode)
        return self._file

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _last_words(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LAST_WORDS))
    return file.read().decode("utf-8", "replace")


def binary(
    program: str,
    *,
    args: str | None = None,
    working_dir: str | None = None,
    stdout: str = "",
    stderr: str = "",
    fail: bool = True,
    **options: Any,
) -> Callable[[Callable[..., Any]], Task]:
    """Make a program a task: the function below says what its arguments are, and is not called itself.

    Its future's value is the exit status.

    Parameters
    ----------
    program : str
        Its name on the worker's PATH, or its path.
    args : str, optional
        Its arguments, with ``{name}`` for those of the function; a value is one word, whatever is in it. By default all of them, in order.
    working_dir : str, optional
    stdout, stderr : str
        Names of parameters, `FileOut` or `FileInOut`, that they are written to.
    fail : bool
        False: an exit status other than 0 is no error.
    **options
        Those of `task`, and directions.

    Examples
    --------
    >>> @binary("grep", args="-c {word} {path}", stdout="found", path=hpc.FileIn, found=hpc.FileOut)  # doctest: +SKIP
    ... def count(word, path, found): ...
    """
    command = Command(program, args=args, working_dir=working_dir, stdout=stdout, stderr=stderr, fail=fail)
    return lambda fn: apart(task(returns=1, **options)(running(fn, command.run)))


def container(
    image: str, program: str, *, engine: str = "", engine_options: Sequence[str] = (), **more: Any
) -> Callable[[Callable[..., Any]], Task]:
    """Make a program in a container a task; the rest is as in `binary`.

    Parameters
    ----------
    image : str
    program : str
    engine : str
        By default whichever of apptainer and singularity there is.
    engine_options : sequence of str
        As ``("--nv",)``.
    **more
        Those of `binary` and `task`.
    """
    names = {"args", "working_dir", "stdout", "stderr", "fail"}
    own = {name: value for name, value in more.items() if name in names}
    options = {name: value for name, value in more.items() if name not in names}
    before = functools.partial(inside, image, engine, tuple(engine_options))
    command = Command(program, before=before, **own)
    return lambda fn: apart(task(returns=1, **options)(running(fn, command.run)))


def inside(image: str, engine: str, options: Sequence[str], arguments: dict[str, Any]) -> list[str]:
    """The words before a program that have it run in a container.

    Raises
    ------
    TaskFailed
        There is no engine.
    """
    found = next(filter(shutil.which, [engine] if engine else ENGINES), None)
    if found is None:
        raise TaskFailed(
            f"there is no {engine or ' and no '.join(ENGINES)} on the PATH",
            where=socket.gethostname(),
            remedy="Load its module in the site's setup:, or name another engine=.",
        )
    # What was staged is to be seen inside under the same name.
    places = sorted({str(Path(value).parent) for value in _texts(arguments.values()) if Path(value).is_absolute()})
    return [found, "exec", *(word for place in places for word in ("--bind", place)), *options, image]


def _texts(values: Any) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | tuple):
            yield from _texts(value)


def running(fn: Callable[..., Any], run: Callable[[dict[str, Any]], Any]) -> Callable[..., Any]:
    """A function with the signature of another one, which gives its arguments to `run`."""
    signature = inspect.signature(fn)

    @functools.wraps(fn)
    def body(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        sys.stdout.flush()
        return run(dict(bound.arguments))

    return body


def apart(made: Task) -> Task:
    """The task, if none of its arguments is an object that it writes, which other processes cannot.

    Raises
    ------
    TypeError
    """
    if names := [name for name, way in made.directions.items() if way.writes and not way.is_path]:
        raise TypeError(
            f"{made.fn.__name__}() runs in processes of its own, which cannot change {', '.join(names)}: let it return it"
        )
    return made
