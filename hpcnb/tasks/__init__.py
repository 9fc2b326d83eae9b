"""Tasks: functions that say what they do with their arguments, and run on the cluster in the order that follows from it."""

from hpcnb.tasks.binary import binary, container
from hpcnb.tasks.directions import (
    Collection,
    Commutative,
    Concurrent,
    Dictionary,
    DirectoryIn,
    DirectoryInOut,
    DirectoryOut,
    FileCommutative,
    FileConcurrent,
    FileIn,
    FileInOut,
    FileOut,
    In,
    InDelete,
    InOut,
    Out,
)
from hpcnb.tasks.group import Group
from hpcnb.tasks.mpi import mpi
from hpcnb.tasks.reduction import reduction
from hpcnb.tasks.task import Task, implements, io, local, task
from hpcnb.tasks.verbs import barrier, delete, graph, group, wait_on, wait_on_file

__all__ = [
    "Collection",
    "Commutative",
    "Concurrent",
    "Dictionary",
    "DirectoryIn",
    "DirectoryInOut",
    "DirectoryOut",
    "FileCommutative",
    "FileConcurrent",
    "FileIn",
    "FileInOut",
    "FileOut",
    "Group",
    "In",
    "InDelete",
    "InOut",
    "Out",
    "Task",
    "barrier",
    "binary",
    "container",
    "delete",
    "graph",
    "group",
    "implements",
    "io",
    "local",
    "mpi",
    "reduction",
    "task",
    "wait_on",
    "wait_on_file",
]
