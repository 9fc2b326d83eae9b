"""Objects that outlive kernel and cluster: `persist` writes one down at the site, `load` has it back, there where it is."""

from __future__ import annotations

from typing import Any

from hpcnb.errors import TaskError
from hpcnb.future.future import Future
from hpcnb.future.verbs import submit
from hpcnb.pilot import objects

__all__ = ["load", "persist", "persisted", "unpersist"]


def persist(obj: Any, name: str) -> Future:
    """Keep an object under a name at the site of the cluster in use, until `unpersist`; waits until it is written.

    Parameters
    ----------
    obj : object
        Anything that can be pickled, or a future: then the value does not travel to this machine.
    name : str
        Letters, digits, ``_``, ``-`` and ``.``; an object of the same name is replaced.

    Returns
    -------
    Future
        Of the object as `load` gives it.

    Raises
    ------
    TaskError
        The name cannot be one.
    CannotSerialize
        No file can hold the object.

    Examples
    --------
    >>> model = persist(submit(fit, data), "model")             # doctest: +SKIP
    >>> submit(predict, load("model"), new_data).result()       # doctest: +SKIP
    """
    submit(objects.keep, obj, _checked(name)).result()
    return load(name)


def load(name: str) -> Future:
    """An object that was kept under a name, by whichever notebook, at the site of the cluster in use.

    A worker reads it once; tasks that take it as an argument run where it then is, unless they are many: Dask spreads these,
    and the object with them.

    Raises
    ------
    TaskError
        There is none of that name; the message lists those that there are.
    """
    if not (version := submit(objects.version, _checked(name)).result()):
        there = ", ".join(persisted()) or "none"
        raise TaskError(
            f"no object {name!r} is kept at this site", evidence=f"kept: {there}", remedy="hpc.persist(obj, name)"
        )
    # The same key for everybody, so that no two workers read the same version.
    return submit(objects.fetch, name, version, key=f"object-{name}-{version}")


def persisted() -> dict[str, int]:
    """The names of all objects kept at the site of the cluster in use, each with its size in bytes."""
    found: dict[str, int] = submit(objects.names).result()
    return found


def unpersist(name: str) -> None:
    """Remove a kept object.

    Raises
    ------
    TaskError
        There is none of that name.
    """
    if not submit(objects.drop, _checked(name)).result():
        raise TaskError(f"no object {name!r} is kept at this site", remedy="hpc.persisted() lists them.")


def _checked(name: str) -> str:
    if not objects.NAME.fullmatch(name):
        raise TaskError(
            f"{name!r} cannot be the name of an object",
            remedy="Use letters, digits, _, - and ., a hundred at most, not beginning with - or a dot.",
        )
    return name
