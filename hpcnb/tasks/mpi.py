"""MPI programs as tasks: a Python function in each rank, or a program."""

from __future__ import annotations

import functools
import io
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle

from hpcnb.errors import TaskFailed
from hpcnb.tasks.binary import LAST_WORDS, Command, apart, failed, running
from hpcnb.tasks.rank import MARK
from hpcnb.tasks.task import Task, task

__all__ = ["Launch", "mpi"]

OURS = ("SLURM_JOB_ID", "SLURM_CONF")
"""Of Slurm's variables what a step needs; the others are of the worker's own step, and would be taken for wishes."""
FOREIGN = ("SLURM_", "PMI_", "PMIX_", "OMPI_")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How ranks are started.

    Parameters
    ----------
    ranks : int
    ranks_per_node : int, optional
    launcher : str
        ``srun`` or ``mpirun``; by default srun in a job of Slurm's.
    options : sequence of str
        Further ones of the launcher, as ``("--mpi=pmix",)``.
    """

    ranks: int
    ranks_per_node: int | None = None
    launcher: str = ""
    options: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise ValueError(f"ranks={self.ranks}: an MPI program has at least one rank")

    def words(self) -> list[str]:
        """The command line before the program's.

        Raises
        ------
        TaskFailed
            There is no launcher.
        """
        launcher = self.launcher or ("srun" if "SLURM_JOB_ID" in os.environ and shutil.which("srun") else "mpirun")
        if shutil.which(launcher) is None:
            raise TaskFailed(
                f"there is no {launcher} on the PATH of the worker",
                remedy="Load an MPI module in the site's setup:, or name another launcher=.",
            )
        return [launcher, *(self._srun() if launcher.endswith("srun") else self._mpirun()), *self.options]

    def _srun(self) -> list[str]:
        # Beside the workers, which hold all that the allocation has.
        words = ["--overlap", "--overcommit", "--kill-on-bad-exit=1", "--input=0", f"--ntasks={self.ranks}"]
        if self.ranks_per_node:
            nodes = -(-self.ranks // self.ranks_per_node)
            words += [f"--nodes={nodes}", f"--ntasks-per-node={self.ranks_per_node}"]
        return words

    def _mpirun(self) -> list[str]:
        if self.ranks_per_node:
            raise TaskFailed(
                "each mpirun has words of its own for the ranks of a node",
                remedy='Say it in options=, as ("-ppn", "2") for MPICH.',
            )
        return ["-n", str(self.ranks)]


def environ() -> dict[str, str]:
    """The worker's environment, without what is its own step's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN) or name in OURS}


def mpi(
    ranks: int,
    *,
    program: str = "",
    ranks_per_node: int | None = None,
    launcher: str = "",
    launcher_options: Sequence[str] = (),
    args: str | None = None,
    working_dir: str | None = None,
    stdout: str = "",
    stderr: str = "",
    fail: bool = True,
    **options: Any,
) -> Callable[[Callable[..., Any]], Task]:
    """Make a function an MPI task, which runs in each rank, or the signature of an MPI program.

    The value of a function is the list of what its ranks return, which find each other by ``mpi4py.MPI.COMM_WORLD``; the future of a
    program is its exit status. The ranks run beside the workers, in the same allocation.

    Parameters
    ----------
    ranks : int
    program : str
        By default the function itself is run.
    ranks_per_node : int, optional
    launcher : str
        ``srun`` or ``mpirun``; by default srun in a job of Slurm's.
    launcher_options : sequence of str
        As ``("--mpi=pmix",)``.
    args, working_dir, stdout, stderr, fail
        Of a program, as in `binary`.
    **options
        Those of `task`, and directions.

    Examples
    --------
    >>> @mpi(ranks=4)                               # doctest: +SKIP
    ... def rank():
    ...     from mpi4py import MPI
    ...     return MPI.COMM_WORLD.rank
    >>> rank().result()                             # doctest: +SKIP
    [0, 1, 2, 3]
    """
    launch = Launch(ranks=ranks, ranks_per_node=ranks_per_node, launcher=launcher, options=tuple(launcher_options))

    def made(fn: Callable[..., Any]) -> Task:
        if program:
            own = {"args": args, "working_dir": working_dir, "stdout": stdout, "stderr": stderr, "fail": fail}
            run: Any = Command(program, before=functools.partial(before, launch), environ=environ, **own).run  # type: ignore[arg-type]
        else:
            run = functools.partial(run_function, launch, fn)
        return apart(task(**{"returns": 1, **options})(running(fn, run)))

    return made


def before(launch: Launch, _: dict[str, Any]) -> list[str]:
    """The words before a program that have it run in each rank."""
    return launch.words()


def run_function(launch: Launch, fn: Callable[..., Any], arguments: dict[str, Any]) -> list[Any]:
    """Run a function in each rank; what they return.

    Raises
    ------
    TaskFailed
        They have ended without an answer.
    """
    words = [*launch.words(), sys.executable, "-c", "from hpcnb.tasks.rank import main; main()"]
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            words,
            env=environ(),
            input=cloudpickle.dumps((fn, arguments)),
            stdout=subprocess.PIPE,
            stderr=said,
            check=False,
        )
        said.seek(max(0, said.seek(0, io.SEEK_END) - LAST_WORDS))
        last_words = said.read().decode("utf-8", "replace")
    _, marked, answer = done.stdout.partition(MARK)
    if marked:
        value = pickle.loads(answer)  # noqa: S301 - of our own ranks
        if isinstance(value, BaseException):
            raise value
        return [pickle.loads(one) for one in value]  # noqa: S301 - likewise
    raise failed([fn.__name__], done.returncode, last_words)
