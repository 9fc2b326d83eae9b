"""The websocket by which a page hears of its user's clusters and answers questions, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json

import httpx
import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from hpcnb.server.news import RATE, Outbox
from tests.site.sshd import Sshd

pytestmark = pytest.mark.slow

WITHIN = 60.0


class Page:
    """A page's end of the websocket."""

    def __init__(self, connection):
        self._connection = connection

    async def until(self, wanted):
        """Read until a message is as wanted, and return it."""
        async with asyncio.timeout(WITHIN):
            while (text := await self._connection.read_message()) is not None:
                if wanted(message := json.loads(text)):
                    return message
        raise AssertionError("the server has closed the connection")

    async def say(self, **message):
        await self._connection.write_message(json.dumps(message))


async def closed(connection):
    """Close a connection, and wait until it is: one that is closing when its loop ends is found by a later test."""
    connection.close()
    while await connection.read_message() is not None:
        pass


@pytest.fixture
def address(jupyter):
    return jupyter.url.replace("http", "ws", 1) + "hpcnb/api/news"


@pytest.fixture
async def page(jupyter, address):
    """Open pages; all are closed after the test."""
    opened = []

    async def open_():
        request = HTTPRequest(address, headers={"Authorization": f"token {jupyter.token}"})
        opened.append(await websocket_connect(request))
        return Page(opened[-1])

    yield open_
    for connection in opened:
        await closed(connection)


@contextlib.asynccontextmanager
async def posting(jupyter, path, **body):
    """Ask for something that may take long; gives what it answers."""
    headers = {"Authorization": f"token {jupyter.token}"}
    async with httpx.AsyncClient(base_url=f"{jupyter.url}hpcnb/api/", headers=headers, timeout=WITHIN) as client:
        task = asyncio.create_task(client.post(path, json=body))
        yield task
        await task


async def refused(request):
    with pytest.raises(HTTPClientError) as caught:
        await websocket_connect(request)
    return caught.value.code


async def test_without_a_token_403(jupyter, address):
    """Neither without a token, nor from somebody else's page that has the browser's cookies, can anything be heard."""
    assert await refused(HTTPRequest(address)) == 403
    async with httpx.AsyncClient() as browser:
        said = await browser.get(f"{jupyter.url}api/status", params={"token": jupyter.token})
    cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in said.cookies.items())}
    await closed(await websocket_connect(HTTPRequest(address, headers=cookies)))
    assert await refused(HTTPRequest(address, headers=cookies | {"Origin": "http://elsewhere.example"})) == 403


async def test_every_page_hears_of_every_cluster(jupyter, page):
    """Pages see a cluster that one of them, a notebook or a terminal has started, and one that comes later sees it too."""
    first = await page()
    assert await first.until(lambda message: True) == {"type": "clusters", "clusters": []}
    await asyncio.to_thread(jupyter.command, "up", "--name", "heard")
    ready = await first.until(lambda message: message["type"] == "cluster" and message["cluster"]["state"] == "ready")
    assert ready["cluster"]["spec"]["name"] == "heard"
    second = await page()
    assert [cluster["id"] for cluster in (await second.until(lambda message: True))["clusters"]] == [
        ready["cluster"]["id"]
    ]
    await asyncio.to_thread(jupyter.command, "down", "heard")
    for each in first, second:
        await each.until(lambda message: message["type"] == "cluster" and message["cluster"]["state"] == "ended")


async def test_its_traffic_is_bounded(figure):
    """Two hundred clusters that change all the time cost a page no more than a fixed rate, and the last of each is told."""
    outbox, told, all_told = Outbox(), [], asyncio.Event()
    clusters = waiting = {f"cluster {n}" for n in range(200)}
    began = asyncio.get_running_loop().time()

    async def write(text):
        nonlocal waiting
        told.append(text)
        if json.loads(text)["turn"] == 99:
            waiting = waiting - {json.loads(text)["cluster"]}
        if not waiting:
            all_told.set()

    telling = asyncio.create_task(outbox.tell(write))
    for turn in range(100):
        for cluster in clusters:
            outbox.put(cluster, {"cluster": cluster, "turn": turn, "status": "x" * 1500})
        await asyncio.sleep(0.03)
    async with asyncio.timeout(WITHIN):
        await all_told.wait()
    took = asyncio.get_running_loop().time() - began
    telling.cancel()
    assert len(told) <= RATE * took + len(clusters)
    figure(f"{len(told) / took:.0f} messages, {sum(map(len, told)) / took / 1000:.0f} kB a second of 200 clusters")


@pytest.fixture
def stranger(jupyter, tmp_path):
    """A login node whose key nobody has vouched for yet."""
    server = Sshd(tmp_path / "site")
    server.known_hosts.write_text("")
    site = {"host": "site", "ssh-config": str(server.config), "batch": "process"}
    jupyter.configure(json.dumps({"hpcnb": {"sites": {"site": site}}}))
    yield server
    jupyter.configure("")
    server.stop()


@pytest.mark.site
async def test_questions_reach_the_pages(jupyter, page, stranger):
    """What a login node asks is asked on every page, also one opened later; the first answer counts for all."""
    first = await page()
    async with posting(jupyter, "sites/site/login") as answer:
        question = await first.until(lambda message: message["type"] == "question")
        assert question["kind"] == "confirm"
        assert "127.0.0.1" in question["text"]
        second = await page()
        assert await second.until(lambda message: message["type"] == "question") == question
        await second.say(type="answer", number=question["number"], text=None)
        for each in first, second:
            await each.until(lambda message: message == {"type": "answered", "number": question["number"]})
        said = await answer
    assert said.status_code == 409
    assert "nobody vouched for the host key" in said.json()["message"]
    async with posting(jupyter, "sites/site/login") as answer:
        question = await first.until(lambda message: message["type"] == "question")
        await first.say(type="answer", number=question["number"], text="yes")
        assert (await answer).status_code == 200


@pytest.mark.site
async def test_who_only_looks_asks_nothing(jupyter, api, page, stranger):
    """What pages ask again and again (queues, limits) never waits for the user, though a page could ask: it is refused."""
    first = await page()
    await first.until(lambda message: message["type"] == "clusters")
    for path in ("sites/site/limits", "queues?site=site"):
        said = await asyncio.to_thread(api.get, path)
        assert (said.status_code, "host key" in said.json()["message"]) == (409, True)


@pytest.mark.site
async def test_with_no_page_nobody_is_asked(jupyter, stranger):
    """A request that needs the user fails at once where no page is open, and says what to do."""
    async with posting(jupyter, "sites/site/login") as answer:
        said = await answer
    assert said.status_code == 409
    assert "nobody vouched for the host key" in said.json()["message"]
