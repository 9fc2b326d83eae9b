"""The keeper, in a real scheduler with real clients: what a leaving client leaves, and what a living one lets go of."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import NamedTuple

import dask
import pytest
from distributed import Future as DaskFuture
from distributed import LocalCluster, Scheduler

from hpcnb import kept, notebook_name
from hpcnb.farewell import farewell
from hpcnb.kept import NotebookClient
from hpcnb.pilot.scheduler import keeper as keeper_module
from hpcnb.pilot.scheduler.keeper import TAG, Keeper, client_name, notebook_of
from hpcnb.pilot.scheduler.once import Once
from tests.isolation import until


def double(x):
    """A task."""
    return 2 * x


def fail():
    """One that fails."""
    raise ValueError("as it should")


class Pair(NamedTuple):
    """Scattered item by item."""

    a: int
    b: int


class Place:
    """A cluster with a keeper, and its clients."""

    def __init__(
        self, cluster: LocalCluster, stack: contextlib.AsyncExitStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.cluster = cluster
        self._stack = stack
        self._monkeypatch = monkeypatch
        self.scheduler: Scheduler = cluster.scheduler
        self.scheduler.add_plugin(Once(self.scheduler))
        self.keeper = Keeper(self.scheduler)
        self.scheduler.add_plugin(self.keeper)

    async def client(self, notebook: str = "a.ipynb") -> NotebookClient:
        """A kernel's client."""
        self._monkeypatch.setattr(kept, "notebook_name", lambda: notebook)
        return await self._stack.enter_async_context(NotebookClient(self.cluster))

    async def killed(self, client: NotebookClient) -> None:
        """End a client as SIGKILL does: its connection is gone, and it says nothing more."""
        client.status = "closed"
        client.scheduler_comm.comm.abort()
        await until(lambda: client.id not in self.scheduler.clients)

    def held(self, notebook: str = "a.ipynb") -> list[str]:
        """The keys that are held, in order."""
        return [key for key, *_ in self.keeper.kept(notebook)["futures"]]


@pytest.fixture
async def place(monkeypatch):
    """A scheduler and a worker in this process."""
    # Dask's HTTP server comes without a dashboard, too, on a port that another test of this machine may have.
    anywhere = {"dashboard_address": "127.0.0.1:0"}
    async with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            asynchronous=True,
            dashboard_address=None,
            scheduler_kwargs=anywhere,
        ) as own,
        contextlib.AsyncExitStack() as stack,
    ):
        yield Place(own, stack, monkeypatch)


def test_a_notebook_is_known_by_the_id_of_its_client():
    """Whatever the notebook is called, its name is read from the id that Dask makes; another client is nobody's."""
    uuid = "0f7fd1d6-c767-11f0-9f0e-0242ac110002"
    for name in ("/home/ada/a-b.ipynb", "ünï cödé\n-1234.ipynb", "hpcnb:x"):
        assert notebook_of(f"NotebookClient-{client_name(name)}-{uuid}") == name
    assert notebook_of(f"Client-{uuid}") == ""
    assert notebook_of("hpcnb-keeper:a") == ""


@pytest.mark.parametrize(
    ("told", "space", "name"),
    [
        ("/home/ada/fit.ipynb", {}, "/home/ada/fit.ipynb"),
        ("/home/ada/fit-jvsc-0f7fd1d6-c767-11f0.ipynb", {}, "/home/ada/fit.ipynb"),
        ("fit.ipynb-jvsc-0f7fd1d6-c767-11f0", {}, "fit.ipynb"),
        ("", {"__vsc_ipynb_file__": "/home/ada/fit.ipynb", "_dh": ["/"]}, "/home/ada/fit.ipynb"),
        ("", {"_dh": ["/home/ada", "/tmp"]}, "/home/ada"),
    ],
)
def test_a_notebook_is_known_by_its_path(monkeypatch, told, space, name):
    """As the front end tells it, whichever that is; else by where its kernel started."""
    monkeypatch.setenv("JPY_SESSION_NAME", told)
    monkeypatch.setattr(notebook_name, "shell", lambda: SimpleNamespace(user_ns=space))
    assert notebook_name.notebook_name() == name


@pytest.mark.parametrize("way", ["killed", "closed", "dropped and closed", "IPython ends"])
async def test_results_of_a_client_that_left_stay(place, way, monkeypatch):
    """Finished, failed and queued futures are there for the next kernel, in order, by name, with tags."""
    client = await place.client()
    futures = [client.submit(double, i, pure=False) for i in range(3)]
    with dask.annotate(**{TAG: "bad"}):
        futures.append(client.submit(fail, pure=False))
    await until(lambda: all(f.done() for f in futures))
    keys = [f.key for f in futures]
    if way == "killed":
        await place.killed(client)
    else:
        if way == "dropped and closed":  # as at the end of Python: it says that it leaves, then drops all
            await farewell(client)
            del futures
        elif way == "IPython ends":  # it clears its variables while everything still works
            monkeypatch.setattr(kept, "shell", lambda: SimpleNamespace(_atexit_once_called=True))
            del futures
            await client._kept()
            monkeypatch.undo()
        await client.close()
        await until(lambda: client.id not in place.scheduler.clients)
    assert place.held() == keys
    again = await place.client()
    back = await again._all_futures()
    assert [f.key for f in back] == keys
    assert [f.state for f in back] == ["finished"] * 3 + ["failed"]
    assert [f.name for f in back] == ["double"] * 3 + ["fail"]
    assert [f.tag for f in back] == ["", "", "", "bad"]
    assert [await future for future in back[:3]] == [0, 2, 4]
    with pytest.raises(ValueError, match="as it should"):
        await back[3]


async def test_what_a_living_client_drops_is_gone(place):
    """A future that nothing refers to any more is forgotten by the scheduler, and another is not."""
    client = await place.client()
    first, second = client.submit(double, 1, pure=False), client.submit(double, 2, pure=False)
    await client.gather([first, second])
    dropped, stays = first.key, second.key
    del first
    await until(lambda: dropped not in place.scheduler.tasks)
    assert place.held() == [stays] == list(place.scheduler.tasks)


async def test_what_came_back_stays_until_it_is_released(place):
    """Listing the futures of an earlier kernel and dropping the list releases nothing; ``release()`` does."""
    client = await place.client()
    futures = client.map(double, range(3), pure=False)
    keys = [f.key for f in futures]
    await client.gather(futures)
    await place.killed(client)
    again = await place.client()
    assert [f.key for f in await again._all_futures()] == keys
    assert [f.key for f in await again._all_futures()] == keys
    assert place.held() == keys
    (await again._all_futures())[0].release()
    assert [f.key for f in await again._all_futures()] == keys[1:]
    assert place.held() == keys[1:]


async def test_what_was_sent_to_the_workers_stays(place):
    """Scattered data, of which no task tells, survives a cut and a killed kernel; dropped by a living one it goes."""
    client = await place.client()
    sent = [await client.scatter(data, hash=False) for data in (1, (2, Pair(3, 4)), {"five": 5})]
    dropped = await client.scatter(6, hash=False)
    sent.append(await client.scatter(Pair(7, 8), hash=False))
    before, gone = client.id, dropped.key
    client.scheduler_comm.comm.abort()
    await until(lambda: client.status == "running" and client.id != before)
    del dropped
    await until(lambda: gone not in place.scheduler.tasks)
    keys = [sent[0].key, *(f.key for f in sent[1]), "five", *(f.key for f in sent[3])]
    assert place.held() == keys
    await place.killed(client)
    again = await place.client()
    back = await again._all_futures()
    assert [f.key for f in back] == keys
    assert [await future for future in back] == [1, 2, (3, 4), 5, 7, 8]
    assert await again.submit(double, back[0].dask) == 2


async def test_two_kernels_of_one_notebook(place):
    """What one of them drops stays while the other one has it."""
    first, second = await place.client(), await place.client()
    future = first.submit(double, 21, pure=False)
    await future
    [same] = await second._all_futures()
    key = future.key
    del future
    await until(lambda: len(place.scheduler.tasks[key].who_wants) == 2)
    assert place.held() == [key]
    await place.killed(second)
    assert place.held() == [key]
    assert same.key == key


async def test_a_cancelled_future_is_cancelled(place):
    """That the keeper holds it is no hindrance, neither for what depends on it."""
    client = await place.client()
    first = client.submit(double, 1, pure=False)
    await first
    second = client.submit(double, first, pure=False)
    await client.cancel([first])
    await until(lambda: not place.scheduler.tasks and second.status == "cancelled")
    assert (first.status, place.held()) == ("cancelled", [])


async def test_a_lost_connection_cancels_nothing(place):
    """A client whose connection broke comes back with its futures, finished and new, and can submit more."""
    client = await place.client()
    done, fails = client.submit(double, 1, pure=False), client.submit(fail, pure=False)
    await until(lambda: done.done() and fails.done())
    for _ in range(3):
        before = client.id
        client.scheduler_comm.comm.abort()
        await until(lambda: client.status == "running" and client.id != before)  # noqa: B023 - waited for here
    more = client.submit(double, done, pure=False)
    assert await client.gather([done, more]) == [2, 4]
    assert [f.key for f in await client._all_futures()] == [done.key, fails.key, more.key]
    assert fails.status == "error"
    key = more.key
    del more
    await until(lambda: key not in place.scheduler.tasks)


async def test_what_the_scheduler_does_not_know_is_no_endless_wait(place):
    """A future whose key is unknown there ends as cancelled, with a reason."""
    client = await place.client()
    lost = DaskFuture("never-heard-of", client)
    client._send_to_scheduler({"op": "client-desires-keys", "keys": [lost.key]})
    with pytest.raises(Exception, match="submit it again"):
        await lost


async def test_another_notebook_takes_over_what_nobody_has(place):
    """A notebook that is away is named with what it has; while it lives, nothing of it can be taken."""
    client = await place.client("a.ipynb")
    futures = client.map(double, range(2), pure=False)
    keys = [f.key for f in futures]
    await client.gather(futures)
    other = await place.client("b.ipynb")
    assert (await other._kept())["others"] == {}
    assert (await other._kept(adopt="a.ipynb"))["futures"] == []
    await place.killed(client)
    assert (await other._kept())["others"] == {"a.ipynb": 2}
    assert [key for key, *_ in (await other._kept(adopt="a.ipynb"))["futures"]] == keys
    assert place.held("a.ipynb") == []
    assert [await future for future in await other._all_futures()] == [0, 2]


async def test_what_is_kept_is_bounded(place, monkeypatch):
    """Beyond the bound the oldest results of kernels that are gone make room."""
    monkeypatch.setattr(keeper_module, "ORPHANS", 3)
    for _ in range(3):
        client = await place.client()
        futures = client.map(double, range(2), pure=False)
        keys = [f.key for f in futures]
        await client.gather(futures)
        await place.killed(client)
    assert len(place.held()) == 3
    assert place.held()[1:] == keys


async def test_clients_that_are_no_notebooks_are_left_alone(place):
    """Nothing is held for a cell's or a task's own client."""
    from distributed import Client

    async with Client(place.cluster, asynchronous=True) as client:
        assert await client.submit(double, 1) == 2
    await until(lambda: not place.scheduler.tasks)
    assert place.keeper.kept("a.ipynb") == {"futures": [], "others": {}}
