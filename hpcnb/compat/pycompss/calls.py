"""``pycompss.api.api``: synchronisation, deletion, groups and resources, by their names there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from hpcnb import tasks

__all__ = [
    "COMPSsException",
    "TaskGroup",
    "compss_barrier",
    "compss_barrier_group",
    "compss_cancel_group",
    "compss_delete_file",
    "compss_delete_object",
    "compss_file_exists",
    "compss_free_resources",
    "compss_get_number_of_resources",
    "compss_open",
    "compss_request_resources",
    "compss_set_wall_clock",
    "compss_start",
    "compss_stop",
    "compss_wait_on",
    "compss_wait_on_directory",
    "compss_wait_on_file",
]

_groups: dict[str, tasks.Group] = {}


class COMPSsException(Exception):
    """What a task raises to end its group."""


def compss_wait_on(*objects: Any, **_: Any) -> Any:
    """Bring the current value of objects; `mode` does nothing here, since what the program has is always its own."""
    return tasks.wait_on(*objects)


def compss_wait_on_file(*paths: str) -> bool:
    """Have files as the tasks called so far leave them."""
    tasks.wait_on_file(*paths)
    return True


compss_wait_on_directory = compss_wait_on_file


def compss_open(file_name: str, mode: str = "r") -> IO[Any]:
    """Open a file as the tasks called so far leave it."""
    tasks.wait_on_file(file_name)
    return open(file_name, mode)


def compss_barrier(no_more_tasks: bool = False) -> None:  # noqa: ARG001 - their signature
    """Wait for all tasks; that no more will come needs not be said."""
    tasks.barrier()


def compss_barrier_group(group_name: str) -> None:
    """Wait for the tasks of a group; its error is raised."""
    tasks.barrier(_group(group_name))


def compss_cancel_group(group_name: str) -> None:
    """Cancel those tasks of a group that have not ended."""
    _group(group_name).cancel()


def _group(name: str) -> tasks.Group:
    if name not in _groups:
        raise ValueError(f"there is no group {name!r}; there are: {', '.join(_groups) or 'none'}")
    return _groups[name]


@contextlib.contextmanager
def TaskGroup(group_name: str, implicit_barrier: bool = True) -> Iterator[None]:  # noqa: N802 - their name
    """Tasks that are waited for, and fail, together."""
    with tasks.group(group_name, wait=implicit_barrier) as group:
        _groups[group_name] = group
        yield


def compss_delete_object(*objects: Any) -> bool | list[bool]:
    """Forget what tasks have made of objects."""
    return _each([tasks.delete(one) or True for one in objects])


def compss_delete_file(*file_name: str) -> bool | list[bool]:
    """Forget what tasks have made of files, and remove them."""
    for name in file_name:
        tasks.delete(Path(name))
        Path(name).unlink(missing_ok=True)
    return _each([True for _ in file_name])


def compss_file_exists(*file_name: str) -> bool | list[bool]:
    """Whether files exist, as the tasks called so far leave them."""
    for name in file_name:
        tasks.wait_on_file(name)
    return _each([Path(name).exists() for name in file_name])


def _each(answers: list[bool]) -> bool | list[bool]:
    return answers[0] if len(answers) == 1 else answers


def compss_get_number_of_resources() -> int:
    """The number of nodes."""
    return int(_cluster().nodes)


def compss_request_resources(num_resources: int, group_name: str | None = None) -> None:  # noqa: ARG001 - their signature
    """Ask for so many nodes more."""
    _cluster().scale(nodes=_cluster().nodes + num_resources)


def compss_free_resources(num_resources: int, group_name: str | None = None) -> None:  # noqa: ARG001 - their signature
    """Give so many nodes back."""
    _cluster().scale(nodes=max(1, _cluster().nodes - num_resources))


def _cluster() -> Any:
    from hpcnb.choice import current  # not at a site, where its tasks import this module and there is no client

    return current()


def compss_set_wall_clock(wall_clock_limit: int) -> None:
    """Do nothing: the walltime is asked for with the cluster."""


def compss_start(*_: Any, **__: Any) -> None:
    """Have a cluster."""
    _cluster()


def compss_stop(*_: Any, **__: Any) -> None:
    """Wait for all tasks; the cluster stays."""
    tasks.barrier()
