"""How a node is cut into workers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.model import ClusterSpec, Resources
from hpcnb.pilot.layout import MOST_WORKERS, Node, layout, node_from_environment

GIB = 2**30


def spec(**wishes):
    """What a user asked for."""
    return ClusterSpec(site="octopus", name="fit", resources=Resources(), **wishes)


def cut(cores, *, memory=64 * GIB, gpus=(), **wishes):
    """Workers of a node as (threads, GiB, GPUs)."""
    node = Node(cores=cores, memory=memory, gpus=gpus)
    return [(w.threads, round(w.memory / GIB, 2), w.gpus) for w in layout(spec(**wishes), node)]


@pytest.mark.parametrize(
    ("cores", "wishes", "workers"),
    [
        (1, {}, [(1, 64, ())]),
        (4, {}, [(1, 16, ())] * 4),
        (64, {}, [(8, 8, ())] * 8),
        (9, {}, [(1, 8, ())] * 8),
        (8, {"workers_per_node": 2}, [(4, 32, ())] * 2),
        (8, {"workers_per_node": 3}, [(2, 21.33, ())] * 3),
        (2, {"workers_per_node": 4}, [(1, 16, ())] * 4),
        (8, {"cores_per_worker": 4}, [(4, 32, ())] * 2),
        (8, {"cores_per_worker": 3}, [(3, 32, ())] * 2),
        (2, {"cores_per_worker": 4}, [(4, 64, ())]),
        (8, {"workers_per_node": 1, "cores_per_worker": 2}, [(2, 64, ())]),
        (4, {"memory_per_worker": 2 * GIB}, [(1, 2, ())] * 4),
    ],
)
def test_a_node_is_cut(cores, wishes, workers):
    """A node becomes as many workers as asked, or one per core up to eight, with even shares of cores and memory."""
    assert cut(cores, **wishes) == workers


@pytest.mark.parametrize(
    ("gpus", "wishes", "shares"),
    [
        ("0123", {"gpus_per_worker": 1}, [("0",), ("1",), ("2",), ("3",)]),
        ("0123", {"gpus_per_worker": 2}, [("0", "1"), ("2", "3")]),
        ("012", {"gpus_per_worker": 2}, [("0", "1")]),
        ("", {"gpus_per_worker": 1}, [()]),
        ("01", {"gpus_per_worker": 1, "workers_per_node": 2}, [("0",), ("1",)]),
        ("01", {"workers_per_node": 2}, [(), ()]),
    ],
)
def test_gpus_are_shared_out(gpus, wishes, shares):
    """No GPU is given to two workers, and there are as many workers as there are shares of GPUs."""
    assert [w[2] for w in cut(32, gpus=tuple(gpus), **wishes)] == shares


WISH = st.none() | st.integers(1, 200)


@given(
    cores=st.integers(1, 300),
    memory=st.integers(2**20, 2**42),
    gpus=st.integers(0, 8),
    workers=WISH,
    threads=WISH,
    each=st.integers(0, 4),
)
def test_every_cut_is_sound(cores, memory, gpus, workers, threads, each):
    """Whatever is asked there is a worker, each has a thread and memory, and no core or GPU is promised twice unasked."""
    node = Node(cores=cores, memory=memory, gpus=tuple(map(str, range(gpus))))
    made = layout(spec(workers_per_node=workers, cores_per_worker=threads, gpus_per_worker=each), node)
    assert [w.index for w in made] == [*range(len(made))]
    assert all(w.threads >= 1 and w.memory >= 0 for w in made)
    assert sum(w.memory for w in made) <= memory
    given_out = [gpu for w in made for gpu in w.gpus]
    assert len(given_out) == len(set(given_out)) <= gpus
    if workers is None:
        assert len(made) <= max(cores, MOST_WORKERS)
        assert sum(w.threads for w in made) <= max(cores, threads or 1)
    else:
        assert len(made) == workers


@pytest.mark.parametrize(
    ("environ", "cores", "memory", "gpus"),
    [
        ({}, 8, 16 * GIB, ()),
        ({"SLURM_CPUS_ON_NODE": "4"}, 4, 16 * GIB, ()),
        ({"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_NODE": "2048"}, 4, 2 * GIB, ()),
        ({"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_CPU": "1024"}, 4, 4 * GIB, ()),
        ({"SLURM_MEM_PER_NODE": "0"}, 8, 16 * GIB, ()),
        ({"SLURM_MEM_PER_NODE": "0", "SLURM_MEM_PER_CPU": "0"}, 8, 16 * GIB, ()),
        ({"CUDA_VISIBLE_DEVICES": "0,2"}, 8, 16 * GIB, ("0", "2")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1f2e"}, 8, 16 * GIB, ("GPU-1f2e",)),
        ({"CUDA_VISIBLE_DEVICES": ""}, 8, 16 * GIB, ()),
    ],
)
def test_what_slurm_granted(environ, cores, memory, gpus):
    """A node has what Slurm says, and the machine's where it says nothing, or 0, its word for everything."""
    assert node_from_environment(environ, cores=8, memory=16 * GIB) == Node(cores=cores, memory=memory, gpus=gpus)
