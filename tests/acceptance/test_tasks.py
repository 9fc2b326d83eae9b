"""`@hpc.task` on a real cluster of the embedded site: directions, versions, files, groups, tasks in tasks."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from concurrent.futures import CancelledError
from pathlib import Path

import cloudpickle
import distributed
import numpy as np
import pytest

import hpcnb as hpc
from tests.site.account import Account

pytestmark = pytest.mark.slow

PATIENCE = 30.0
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two workers of four threads on this machine: where the data is, there is room."""
    with (
        tempfile.TemporaryDirectory(prefix="hpcnb-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        Account(Path(folder)).entered() as account,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")  # as a batch system gives them
        account.sites(local={"batch": "process", "software": ["gromacs", "cuda-12"], "features": "fast"})
        with hpc.Cluster("local", workers_per_node=2, cores_per_worker=4, gpus_per_worker=2) as cluster:
            cluster.wait_until_ready(PATIENCE)
            yield hpc.use(cluster)


@pytest.fixture(autouse=True)
def program(cluster):
    """Each test is a program of its own."""
    from hpcnb.tasks import programs

    programs._main = None


def meet(folder: Path, name: str, others: list[str]) -> tuple[float, float]:
    """Say that a task runs, and wait until the others do; from when to when it ran."""
    start = time.time()
    (folder / name).touch()
    deadline = time.monotonic() + PATIENCE
    while not all((folder / other).exists() for other in others):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} has run alone")
        time.sleep(0.005)
    return start, time.time()


def block(matrix, size: int, i: int, j: int):
    return matrix[i * size : (i + 1) * size, j * size : (j + 1) * size].copy()


def joined(blocks, n: int):
    return np.block([[blocks[i, j] for j in range(n)] for i in range(n)])


def overlap(*spans: tuple[float, float]) -> bool:
    return max(start for start, _ in spans) < min(end for _, end in spans)


# -- what is written -----------------------------------------------------------------------------------------------------


def test_blocked_matrix_multiply():
    """Blocked matrix multiply with INOUT blocks equals numpy."""

    @hpc.task
    def multiply(a, b, c: hpc.InOut):
        c += a @ b

    n, size = 3, 4
    rng = np.random.default_rng(0)
    a, b = rng.random((n * size, n * size)), rng.random((n * size, n * size))

    c = [[np.zeros((size, size)) for _ in range(n)] for _ in range(n)]
    for i in range(n):
        for j in range(n):
            for k in range(n):
                multiply(block(a, size, i, k), block(b, size, k, j), c[i][j])
    np.testing.assert_allclose(np.block(hpc.wait_on(c)), a @ b)
    assert len(hpc.graph().nodes) == n**3
    assert len(hpc.graph().edges) == n**2 * (n - 1)


@hpc.task
def potrf(a: hpc.InOut):
    a[...] = np.linalg.cholesky(a)


@hpc.task
def trsm(a, b: hpc.InOut):
    b[...] = np.linalg.solve(a, b.T).T


@hpc.task
def syrk(a, b: hpc.InOut):
    b -= a @ a.T


@hpc.task
def gemm(a, b, c: hpc.InOut):
    c -= a @ b.T


def test_cholesky():
    """Cholesky of 4 by 4 blocks is right, and has the right task and edge counts."""
    n, size = 4, 3
    half = np.random.default_rng(1).random((n * size, n * size))
    whole = half @ half.T + n * size * np.eye(n * size)
    a = {at: block(whole, size, *at) for at in itertools.product(range(n), range(n))}
    for k in range(n):
        below = range(k + 1, n)
        potrf(a[k, k])
        for i in below:
            trsm(a[k, k], a[i, k])
        for i, j in itertools.combinations(below, 2):
            gemm(a[j, k], a[i, k], a[j, i])
        for i in below:
            syrk(a[i, k], a[i, i])
    hpc.wait_on(a)
    np.testing.assert_allclose(np.tril(joined(a, n)), np.linalg.cholesky(whole))
    names = [node.name for node in hpc.graph().nodes.values()]
    assert {name: names.count(name) for name in names} == {"potrf": 4, "trsm": 6, "syrk": 6, "gemm": 4}
    # Into a potrf: 3 (of a syrk). Into a trsm: 6 of a potrf, and 3 of the gemm before. Into a syrk: 6 of a trsm, 3 of the syrk
    # before. Into a gemm: 8 of two trsm each, 1 of the gemm before.
    assert len(hpc.graph().edges) == 3 + 9 + 9 + 9
    assert hpc.graph()._repr_svg_().count("<circle") == 20


def test_readers_of_v1_overlap_the_writer_of_v2(tmp_path):
    """Two readers of v1 overlap the writer of v2, and see v1."""

    @hpc.task
    def write(c: hpc.InOut, name, others):
        c.append(name)
        return meet(tmp_path, name, others)

    @hpc.task
    def read(c, name, others):
        span = meet(tmp_path, name, others)
        return list(c), span

    c: list[str] = []
    write(c, "v1", [])
    names = ["one", "two", "v2"]
    readers = [read(c, name, names) for name in names[:2]]
    writer = write(c, "v2", names)
    (seen, first), (also, second) = hpc.wait_on(readers)
    assert seen == also == ["v1"]
    assert overlap(first, second, hpc.wait_on(writer))
    assert hpc.wait_on(c) == ["v1", "v2"]


def test_a_long_chain():
    """Short tasks in a long chain: no version goes before the scheduler knows who needs it."""

    @hpc.task
    def add(c: hpc.InOut, number):
        c.append(number)
        return number

    c: list[int] = []
    for number in range(100):
        add(c, number)
    assert hpc.wait_on(c) == list(range(100))
    hpc.barrier()


def test_commutative_adders():
    """Eight COMMUTATIVE adders on one list: all eight effects, never two at a time."""

    @hpc.task
    def add(number, found: hpc.Commutative):
        start = time.time()
        found.append(number)
        time.sleep(0.01)
        return start, time.time()

    found: list[int] = []
    spans = sorted(hpc.wait_on([add(number, found) for number in range(8)]))
    assert sorted(hpc.wait_on(found)) == list(range(8))
    assert not any(overlap(*pair) for pair in itertools.pairwise(spans))


def test_concurrent_tasks(tmp_path):
    """CONCURRENT tasks overlap each other, and neither who wrote before nor who reads after them."""

    @hpc.task
    def write(c: hpc.InOut):
        c.append("before")
        return 0.0, time.time()

    @hpc.task
    def change(c: hpc.Concurrent, name):
        assert c == ["before"]
        c.append(name)
        return meet(tmp_path, name, ["one", "two"])

    @hpc.task
    def read(c):
        return time.time(), len(c)

    c: list[str] = []
    (_, before), one, two, (after, length) = hpc.wait_on([write(c), change(c, "one"), change(c, "two"), read(c)])
    assert overlap(one, two)
    assert before < min(one) < max(two) < after
    assert length == 2


def test_methods_change_their_object():
    """The object of a method is INOUT by default; another direction is said with `target_direction`."""

    class Counter:
        def __init__(self):
            self.n = 0

        @hpc.task
        def up(self, by=1):
            self.n += by
            return self.n

        @hpc.task(target_direction=hpc.In)
        def look(self):
            return self.n

    counter = Counter()
    seen = [counter.up(), counter.look(), counter.up(by=2), counter.look()]
    assert hpc.wait_on(seen) == [1, 1, 3, 3]
    assert counter.n == 0  # until it is waited for
    assert hpc.wait_on(counter) is counter
    assert counter.n == 3
    counter.n = 10  # what the program has is current again
    assert hpc.wait_on(counter.up()) == 11


def test_futures_as_arguments():
    """A future is an argument wherever a value is: IN, INOUT, inside lists and dictionaries; several results have a future each."""

    @hpc.task(returns=2)
    def make():
        return [1], {"a": [2]}

    @hpc.task
    def extend(c: hpc.InOut, *more):
        for one in more:
            c.extend(one)

    @hpc.task
    def total(parts, **named):
        return sum(parts["all"][0]) + sum(named["c"])

    one, other = make()
    extend(one, [5], one)
    summed = total({"all": [one, 7]}, c=one)
    assert hpc.wait_on(summed) == 2 * (1 + 5 + 1)
    assert hpc.wait_on(one, other) == [[1, 5, 1], {"a": [2]}]


def test_wrong_number_of_results():
    """A task that returns another number of values than it says is told so."""

    @hpc.task(returns=2)
    def make():
        return [1, 2, 3]

    one, _ = make()
    with pytest.raises(TypeError, match=r"make\(\) was to return 2 values, and returned 3"):
        hpc.wait_on(one)
    with pytest.raises(TypeError):
        hpc.barrier()
    hpc.barrier()


def test_what_is_out_does_not_wait():
    """An OUT argument depends on nothing that was written before; IN_DELETE forgets what was."""

    @hpc.task
    def fill(c: hpc.Out):
        c[:] = [1, 2]

    @hpc.task
    def fail(c: hpc.InOut):
        raise ValueError

    @hpc.task
    def use(c: hpc.InDelete):
        return sum(c)

    c: list[int] = []
    fail(c)
    fill(c)
    assert hpc.wait_on(use(c)) == 3
    assert hpc.wait_on(c) == []
    with pytest.raises(ValueError):
        hpc.barrier()


def test_collections():
    """The elements of collections and dictionaries are passed each for itself, to the depth that is said."""

    @hpc.task(returns=1)
    def double(c: hpc.InOut):
        c *= 2

    @hpc.task
    def add(rows: hpc.Collection(2, hpc.InOut), named: hpc.Dictionary(1, hpc.In)):
        for row in rows:
            for block in row:
                np.add(block, named["by"], out=block)

    blocks = [[np.ones(2) for _ in range(2)] for _ in range(2)]
    by = np.full(2, 3.0)
    double(by)
    double(blocks[1][0])
    add(blocks, {"by": by})
    double(blocks[0][1])
    hpc.wait_on(blocks)
    assert [[block[0] for block in row] for row in blocks] == [[7, 14], [8, 7]]


def test_delete():
    """What was deleted is again what the program has."""

    @hpc.task
    def add(c: hpc.InOut):
        c.append(1)

    c: list[int] = []
    add(c)
    assert hpc.delete(c)
    assert not hpc.delete(c)
    assert hpc.wait_on(c) == []


# -- files -----------------------------------------------------------------------------------------------------------------


def test_files_and_directories(tmp_path):
    """Files and directories are staged to where the task runs and back, versioned by name."""

    @hpc.task
    def count(path: hpc.FileInOut):
        assert Path(path).parent != tmp_path
        Path(path).write_text(str(int(Path(path).read_text()) + 1))

    @hpc.task
    def collect(paths: hpc.Collection(1, hpc.FileIn), out: hpc.FileOut, tree: hpc.DirectoryOut):
        text = " ".join(Path(path).read_text() for path in paths)
        Path(out).write_text(text)
        (Path(tree) / "a").mkdir()
        (Path(tree) / "a" / "text").write_text(text)

    @hpc.task
    def look(tree: hpc.DirectoryInOut):
        (Path(tree) / "b").write_text((Path(tree) / "a" / "text").read_text() + "!")

    counter, other = tmp_path / "counter", tmp_path / "other"
    counter.write_text("0")
    other.write_text("x")
    other.chmod(0o600)
    for _ in range(3):
        count(counter)
    collect([counter, str(other)], tmp_path / "out", tmp_path / "tree")
    look(tmp_path / "tree")
    hpc.barrier()
    assert counter.read_text() == "0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counter", "other"]
    hpc.wait_on_file(counter, tmp_path / "out", str(tmp_path / "tree"))
    assert counter.read_text() == "3"
    assert (tmp_path / "out").read_text() == "3 x"
    assert (tmp_path / "tree" / "b").read_text() == "3 x!"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counter", "other", "out", "tree"]


def test_files_that_are_written_at_the_same_time(tmp_path):
    """FILE_CONCURRENT tasks append to one file in its place, after what was written before and before what reads it."""

    @hpc.task
    def write(path: hpc.FileInOut):
        Path(path).write_text("first\n")

    @hpc.task
    def append(path: hpc.FileConcurrent, name):
        assert Path(path).read_text().startswith("first\n")
        with open(path, "a") as file:
            file.write(f"{name}\n")
        return meet(tmp_path, name, ["a", "b"])

    @hpc.task
    def read(path: hpc.FileIn):
        return Path(path).read_text().split()

    @hpc.task
    def cut(path: hpc.FileCommutative):
        Path(path).write_text(Path(path).read_text()[6:])

    log = tmp_path / "log"
    log.touch()
    write(log)
    one, two = append(log, "a"), append(log, "b")
    found = read(log)
    cut(log)
    assert sorted(hpc.wait_on(found)) == ["a", "b", "first"]
    assert overlap(*hpc.wait_on(one, two))
    hpc.wait_on_file(log)
    assert sorted(log.read_text().split()) == ["a", "b"]


def test_a_file_that_is_nowhere(tmp_path):
    """A file that exists neither here nor there, and one that was not written, are errors that name it."""

    @hpc.task
    def read(path: hpc.FileIn):
        return path

    @hpc.task
    def forget(path: hpc.FileOut):
        pass

    with pytest.raises(
        FileNotFoundError, match="nowhere exists neither where the program runs nor where the task does"
    ):
        hpc.wait_on(read(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"forget\(\) has not written .*unwritten"):
        hpc.wait_on(forget(tmp_path / "unwritten"))


# -- constraints -----------------------------------------------------------------------------------------------------------


def test_tasks_that_need_all_cores(tmp_path):
    """Tasks that need all cores of a worker run one for each worker at a time, those of one worker one after the other."""

    @hpc.task(cores=4)
    def work():
        start = time.time()
        time.sleep(0.1)
        return (start, time.time()), os.getpid()

    ran = hpc.wait_on([work() for _ in range(4)])
    for worker in {pid for _, pid in ran}:
        spans = sorted(span for span, pid in ran if pid == worker)
        assert not any(overlap(*pair) for pair in itertools.pairwise(spans))


def test_cores_are_not_overcommitted(tmp_path):
    """Tasks of one core and of several never have more cores of a worker together than it has; none waits for ever."""

    @hpc.task
    def one():
        start = time.time()
        time.sleep(0.02)
        return start, time.time(), os.getpid(), 1

    @hpc.task(cores=3)
    def three():
        start = time.time()
        time.sleep(0.02)
        return start, time.time(), os.getpid(), 3

    ran = hpc.wait_on([three() if number % 4 == 1 else one() for number in range(40)])
    for worker in {pid for _, _, pid, _ in ran}:
        mine = [span for span in ran if span[2] == worker]
        for moment, *_ in mine:
            assert sum(cores for start, end, _, cores in mine if start <= moment < end) <= 4


def test_each_gpu_is_one_task_s(tmp_path):
    """Tasks at the same time see different GPUs, so many as they have asked for, of those of their worker."""

    @hpc.task(gpus=1)
    def work(name, others):
        return meet(tmp_path, name, others), os.environ["CUDA_VISIBLE_DEVICES"]

    @hpc.task(gpus=2)
    def both(c: hpc.InOut):
        c.append(os.environ["CUDA_VISIBLE_DEVICES"])

    names = ["a", "b", "c", "d"]
    ran = hpc.wait_on([work(name, names) for name in names])
    assert sorted(gpu for _, gpu in ran) == ["4", "5", "6", "7"]
    seen: list[str] = []
    both(seen)
    assert set(hpc.wait_on(seen)[0].split(",")) in ({"4", "5"}, {"6", "7"})
    assert hpc.submit(os.getenv, "CUDA_VISIBLE_DEVICES", gpus=1).result() in {"4", "5", "6", "7"}
    assert hpc.submit(sum, [1, 2], cores=4, memory="1MB").result() == 3
    with pytest.raises(hpc.TaskError, match="no worker has what the task needs: 64 cores"):
        hpc.submit(sum, [1, 2], cores=64)


def test_memory_is_divided(tmp_path):
    """A task that needs most of a worker's memory waits for another that has it."""
    (offered, *_) = hpc.current().client.scheduler_info(n_workers=-1)["workers"].values()

    @hpc.task(memory=f"{int(offered['resources']['memory'] * 0.6 / 1e6)}MB")
    def work():
        start = time.time()
        time.sleep(0.1)
        return (start, time.time()), os.getpid()

    ran = hpc.wait_on([work() for _ in range(3)])
    for worker in {pid for _, pid in ran}:
        spans = sorted(span for span, pid in ran if pid == worker)
        assert not any(overlap(*pair) for pair in itertools.pairwise(spans))


@pytest.mark.parametrize(
    "asked",
    [
        {"cores": 64},
        {"memory": "1PiB"},
        {"storage": "1PiB"},
        {"gpus": 3},
        {"where": "nowhere"},
        {"partition": "long"},
        {"feature": "haswell"},
        {"software": ["gromacs", "vasp"]},
    ],
    ids=str,
)
def test_what_the_site_does_not_have(asked):
    """An unsatisfiable constraint is an error at once, which names what the site offers."""

    @hpc.task(**asked)
    def work():
        """Never run."""

    with pytest.raises(
        hpc.TaskError, match="no worker has what the task needs: .*\n.* 4 cores, .* MiB of memory.*software gromacs"
    ):
        work()


CORES = 1


def test_constraints_by_name():
    """A node's features and the site's software are asked for by name, a number by that of a variable, read at each call."""

    @hpc.task(feature=["Linux", "fast"], software="gromacs", cores="CORES")
    def work():
        return distributed.get_worker().state.tasks[distributed.get_worker().get_current_task()].resource_restrictions

    global CORES
    asked = hpc.wait_on(work())
    assert asked == {"feature:Linux": 0, "feature:fast": 0, "software:gromacs": 0}
    CORES = 3
    assert hpc.wait_on(work()) == asked | {"cores": 3}
    CORES = 64
    with pytest.raises(hpc.TaskError, match="needs: 64 cores"):
        work()


def test_constraints_before_the_cluster_is_ready(cluster):
    """A call with constraints waits for no cluster; what no worker of it has is an error of its future as soon as that is known."""

    @hpc.task(cores=64, returns=2)
    def never(c: hpc.InOut, after):
        """Never run."""

    @hpc.task(cores=2)
    def work():
        time.sleep(0.5)
        return 1

    young = hpc.use(hpc.Cluster("local", name="early", workers_per_node=1, cores_per_worker=2))
    try:
        plain, enough = hpc.submit(sum, [1, 2], gpus=1), work()
        too_much, beside = never([], enough)
        needs_it = hpc.submit(len, beside)
        assert hpc.wait_on(enough) == 1
        for future, asked in ((too_much, "64 cores"), (beside, "64 cores"), (needs_it, "64 cores"), (plain, "1 GPU")):
            with pytest.raises(hpc.TaskError, match=f"no worker has what the task needs: {asked}"):
                future.result(PATIENCE)
    finally:
        young.close()
        hpc.use(cluster)


# -- several versions ------------------------------------------------------------------------------------------------------


def test_the_version_is_that_of_a_free_worker(tmp_path):
    """Each call is run by the best version that its worker has room for: the GPUs' first, the others while those are at work."""

    @hpc.task
    def step(c: hpc.InOut, name, others):
        meet(tmp_path, name, others)
        c.append("core")

    @hpc.implements(step, gpus=1)
    def step_on_gpu(c, name, others):
        meet(tmp_path, name, others)
        c.append(os.environ["CUDA_VISIBLE_DEVICES"])

    names = [f"step-{number}" for number in range(8)]
    lists: list[list[str]] = [[] for _ in names]
    for c, name in zip(lists, names, strict=True):
        step(c, name, names)
    assert sorted(one for (one,) in hpc.wait_on(lists)) == ["4", "5", "6", "7", *["core"] * 4]


def test_versions_share_what_is_to_be_done():
    """Of many calls each version takes its share, whoever takes tasks from whom, with the policy and the outputs of the task."""

    @hpc.task(returns=2, on_failure="IGNORE", default=(0, "lost"))
    def step(n, c: hpc.InOut):
        time.sleep(0.02)
        c.append(n)
        return n, "core"

    @hpc.implements(step, gpus=1)
    def step_on_gpu(n, c):
        if n == 7:
            raise ValueError(n)
        c.append(-n)
        return n, "gpu"

    lists: list[list[int]] = [[] for _ in range(60)]
    pairs = hpc.wait_on([step(n, c) for n, c in enumerate(lists)])
    hpc.wait_on(lists)
    kinds = [kind for _, kind in pairs]
    assert set(kinds) - {"lost"} == {"core", "gpu"}
    for n, (kind, c) in enumerate(zip(kinds, lists, strict=True)):
        assert c == {"core": [n], "gpu": [-n], "lost": []}[kind]


def test_versions_that_there_is_no_worker_for():
    """A version that no worker suits is never taken; with none that any suits the call is an error at once, which names both."""

    @hpc.task(software="vasp")
    def step():
        return "vasp"

    with pytest.raises(hpc.TaskError, match="needs: software vasp"):
        step()

    @hpc.implements(step, gpus=8)
    def on_eight():
        return "eight"

    with pytest.raises(hpc.TaskError, match="needs: 8 GPUs; or software vasp"):
        step()

    @hpc.implements(step, cores=2)
    def on_two():
        return "two"

    assert hpc.wait_on([step() for _ in range(5)]) == ["two"] * 5
    assert (on_two(), {node.name for node in hpc.graph().nodes.values()}) == ("two", {"step"})
    with pytest.raises(TypeError, match=r"other\(a\) cannot do what step\(\) does: the parameters must be the same"):
        hpc.implements(step)(other)
    with pytest.raises(TypeError, match="implements\\(\\) takes a task, not"):
        hpc.implements(len)


def other(a):
    """It has a parameter more."""


# -- programs, and tasks of other kinds -------------------------------------------------------------------------------------


def test_binary(tmp_path):
    """A program's arguments are a template, its output goes to files, and its exit status is returned."""

    @hpc.binary("grep", args="-c -e {word} {path}", stdout="found", path=hpc.FileIn, found=hpc.FileOut)
    def count(word, path, found):
        """Never run."""

    @hpc.binary("sort")
    def order(option, path: hpc.FileIn):
        """All arguments, in order."""

    (tmp_path / "text").write_text("a b\nc\na b\n")
    assert hpc.wait_on(count("a b", tmp_path / "text", tmp_path / "found")) == 0
    hpc.wait_on_file(tmp_path / "found")
    assert (tmp_path / "found").read_text() == "2\n"
    assert order("-r", tmp_path / "text").result() == 0


def test_exit_status(tmp_path):
    """An exit status is an error that shows what the program said, or is returned; a signal and what is no program are named."""
    script = "echo here; echo wrong >&2; pwd; exit 3"

    @hpc.binary("sh", args="-c {script}")
    def strict(script):
        """Never run."""

    @hpc.binary("sh", args="-c {script}", fail=False, working_dir="/", stdout="out", stderr="err")
    def lenient(script, out: hpc.FileOut, err: hpc.FileOut):
        """Never run."""

    @hpc.binary("no-such-program")
    def missing():
        """Never run."""

    with pytest.raises(hpc.TaskFailed, match="ended with exit status 3.*\n.*wrong"):
        strict(script).result()
    with pytest.raises(hpc.TaskFailed, match="was killed by signal 9"):
        strict("kill -9 $$").result()
    with pytest.raises(hpc.TaskFailed, match="no-such-program cannot be run: No such file"):
        missing().result()
    with pytest.raises(hpc.TaskFailed):
        hpc.barrier()
    assert lenient(script, tmp_path / "out", tmp_path / "err").result() == 3
    hpc.wait_on_file(tmp_path / "out", tmp_path / "err")
    assert ((tmp_path / "out").read_text(), (tmp_path / "err").read_text()) == ("here\n/\n", "wrong\n")


def test_container(tmp_path, cluster):
    """A program in a container is run by the engine that is there, with the places of its files; without one that is said."""

    @hpc.container("image.sif", "cat", path=hpc.FileIn)
    def missing(path):
        """Never run."""

    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\nfor word in $@; do echo $word; done > $(dirname $0)/words\n")
    engine.chmod(0o755)

    @hpc.container("image.sif", "cat", engine=str(engine), engine_options=("--nv",), path=hpc.FileIn)
    def show(path):
        """Never run."""

    (tmp_path / "text").write_text("text")
    assert show(tmp_path / "text").result() == 0
    words = (tmp_path / "words").read_text().split()
    assert words[:2] == ["exec", "--bind"]
    assert words[3:6] == ["--nv", "image.sif", "cat"]
    assert words[6] == f"{words[2]}/text"
    with pytest.raises(hpc.TaskFailed, match="there is no apptainer and no singularity on the PATH"):
        missing(tmp_path / "text").result()
    with pytest.raises(hpc.TaskFailed):
        hpc.barrier()


@pytest.mark.parametrize("kind", [hpc.binary("cat"), hpc.container("i", "cat"), hpc.mpi(2), hpc.mpi(2, program="cat")])
def test_what_runs_apart_changes_no_object(kind):
    """Programs and ranks cannot change an object of the notebook: that is refused at once."""
    with pytest.raises(TypeError, match=r"program\(\) runs in processes of its own, which cannot change c"):

        @kind
        def program(c: hpc.InOut):
            """Never run."""


def test_io_keeps_no_core_busy(tmp_path):
    """More I/O tasks than there are cores run at the same time."""
    names = [f"io-{number}" for number in range(12)]

    @hpc.io
    def wait(name):
        return meet(tmp_path, name, names)

    assert overlap(*hpc.wait_on([wait(name) for name in names]))


def test_reduction():
    """A reduction is a tree of tasks, of so many values each."""

    @hpc.reduction(chunk=3)
    def total(values):
        return sum(values)

    @hpc.task
    def square(n):
        return n * n

    assert hpc.wait_on(total([square(n) for n in range(10)])) == sum(n * n for n in range(10))
    assert [node.name for node in hpc.graph().nodes.values()].count("total") == 5
    assert hpc.wait_on([total([]), total([7])]) == [0, 7]


def test_a_mpi_task_without_mpi():
    """Without a launcher the error says so."""

    @hpc.mpi(ranks=2, launcher="no-mpirun")
    def rank():
        """Never run."""

    with pytest.raises(hpc.TaskFailed, match="there is no no-mpirun on the PATH of the worker"):
        rank().result()
    with pytest.raises(hpc.TaskFailed):
        hpc.barrier()


# -- failures --------------------------------------------------------------------------------------------------------------


def attempt(folder: Path) -> list[int]:
    """Note an attempt; the processes of all of them so far."""
    with open(folder / "attempts", "a") as file:
        file.write(f"{os.getpid()}\n")
    return [int(line) for line in (folder / "attempts").read_text().split()]


@pytest.mark.parametrize(("options", "ways"), [({"on_failure": "RETRY"}, "AAB"), ({"retries": 1}, "AB")], ids=str)
def test_retry(tmp_path, options, ways):
    """RETRY tries again on the same worker first, then on another; plain retries go elsewhere at once."""

    @hpc.task(**options)
    def work():
        tried = attempt(tmp_path)
        if len(tried) < len(ways):
            raise ValueError(len(tried))
        return tried

    tried = hpc.wait_on(work())
    names = dict(zip(dict.fromkeys(tried), "ABC", strict=False))
    assert "".join(names[pid] for pid in tried) == ways


def test_retries_have_an_end(tmp_path):
    """When the last attempt has failed its error is raised; each found its argument as it was."""

    @hpc.task(on_failure="RETRY")
    def work(c: hpc.InOut):
        c.append(len(attempt(tmp_path)))
        raise ValueError(c)

    with pytest.raises(ValueError, match=r"\[0, 3\]"):
        hpc.wait_on(work([0]))
    with pytest.raises(ValueError):
        hpc.barrier()


def test_cancel_successors():
    """CANCEL_SUCCESSORS: what comes after the failed task does not run, the rest goes on, and nobody else hears of it."""

    @hpc.task(on_failure="CANCEL_SUCCESSORS")
    def fail(c: hpc.InOut):
        raise ValueError("wrong")

    @hpc.task
    def add(c: hpc.InOut):
        c.append(1)

    c, other = [0], [0]
    failed = fail(c)
    after = add(c)
    add(other)
    hpc.barrier()
    assert hpc.wait_on(other) == [0, 1]
    for future in (failed, after):
        with pytest.raises(ValueError, match="wrong"):
            future.result()


def test_fail(tmp_path):
    """FAIL: whatever the program has called and that has not ended is cancelled, and the next barrier raises the error."""

    @hpc.task(on_failure="FAIL")
    def fail():
        meet(tmp_path, "fails", ["works"])
        raise ValueError("wrong")

    @hpc.task
    def work():
        meet(tmp_path, "works", ["for ever"])

    working = work()
    fail()
    with pytest.raises(ValueError, match="wrong"):
        hpc.barrier()
    with pytest.raises(CancelledError):
        working.result(PATIENCE)


def test_ignore(tmp_path):
    """IGNORE: the default is returned, what it should have written stays as it was, files that it should have made are empty."""

    @hpc.task(on_failure="IGNORE", retries=1, default=(1, 2), returns=2)
    def fail(c: hpc.InOut, there: hpc.FileInOut, new: hpc.FileOut, tree: hpc.DirectoryOut):
        attempt(tmp_path)
        c.append(1)
        Path(there).write_text("half")
        Path(new).write_text("half")
        raise ValueError

    @hpc.task(on_failure="IGNORE", default="late", timeout=0.1)
    def late():
        time.sleep(PATIENCE)
        return "in time"

    there, new, tree, c = tmp_path / "there", tmp_path / "new", tmp_path / "tree", [0]
    there.write_text("before")
    one, two = fail(c, there, new, tree)
    assert hpc.wait_on(one, two, c, late()) == [1, 2, [0], "late"]
    hpc.wait_on_file(there, new, tree)
    assert (there.read_text(), new.read_text(), list(tree.iterdir())) == ("before", "", [])
    assert len(attempt(tmp_path)) == 3
    hpc.barrier()


def test_timeout_and_isolation():
    """A task that takes too long is a TaskTimeout; one in a process of its own may crash, and call tasks as any other."""

    @hpc.task(timeout=0.2)
    def late():
        time.sleep(PATIENCE)

    @hpc.task(isolate=True)
    def crash(c: hpc.InOut):
        c.append(os.getpid())
        if len(c) > 1:
            os.abort()
        return os.getppid()

    @hpc.task
    def where():
        return os.getpid()

    @hpc.task(isolate=True)
    def outer():
        return where()

    with pytest.raises(hpc.TaskTimeout, match=r"late took longer than its 0\.2 s"):
        hpc.wait_on(late())
    c: list[int] = []
    crash(c)
    with pytest.raises(hpc.TaskFailed, match="SIGABRT"):
        crash(c).result()
    with pytest.raises(hpc.TaskError):
        hpc.barrier()
    assert hpc.wait_on(outer()) in hpc.wait_on([where() for _ in range(20)])


def test_a_wrong_policy():
    """A policy that there is not is refused with those that there are."""
    with pytest.raises(ValueError, match="on_failure='TRY': it is one of RETRY, CANCEL_SUCCESSORS, FAIL, IGNORE"):
        hpc.task(on_failure="TRY")(len)


# -- groups, tasks in tasks, local functions ------------------------------------------------------------------------------


def test_a_group_fails_together(tmp_path):
    """An exception in a member cancels the rest of the group and is raised at its end; the others go on."""

    @hpc.task
    def work(name, others):
        return meet(tmp_path, name, others)

    @hpc.task
    def fail():
        raise KeyError("wrong")

    @hpc.task
    def quick():
        return 1

    outside = quick()
    with pytest.raises(KeyError, match="wrong"), hpc.group("g") as group:  # noqa: PT012 - what is raised is raised at its end
        waiting = work("waits", ["for ever"])
        fail()
    assert waiting.cancelled()
    assert group.members == {}
    assert hpc.wait_on(outside) == 1
    hpc.barrier()  # its error was raised
    with hpc.group("late", wait=False) as group:
        fail()
    with pytest.raises(KeyError):
        hpc.barrier(group)
    with pytest.raises(ZeroDivisionError), hpc.group("body"):  # noqa: PT012 - as above
        waiting = work("waits as well", ["for ever"])
        1 / 0  # noqa: B018
    assert waiting.cancelled()


def test_tasks_in_tasks():
    """A task calls tasks, which run on the cluster; it ends when they have, with their values."""

    @hpc.task
    def add(c: hpc.InOut, number):
        c.append(number)
        return number

    @hpc.task
    def fibonacci(n):
        if n < 2:
            return n
        return sum(hpc.wait_on(fibonacci(n - 1), fibonacci(n - 2)))

    @hpc.task
    def outer(c: hpc.InOut):
        return [add(c, 1), {"b": add(c, 2)}]

    c = [0]
    returned = outer(c)
    assert hpc.wait_on(returned) == [1, {"b": 2}]
    assert hpc.wait_on(c) == [0, 1, 2]
    assert hpc.wait_on(fibonacci(5)) == 5


def test_local():
    """A local function is called with what tasks have made of its arguments."""

    @hpc.task
    def add(c: hpc.InOut):
        c.append(1)
        return 5

    @hpc.local
    def both(c, *, number):
        return len(c) + number

    c: list[int] = []
    assert both(c, number=add(c)) == 6
