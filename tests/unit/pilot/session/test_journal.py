"""Messages since N: no gap, no duplicate, bounded, and everything that was printed in the log."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcnb.pilot.session import messages as messages_module
from hpcnb.pilot.session.journal import HEAD_CHARS, HEAD_LINES, Journal
from hpcnb.pilot.session.messages import MEMORY

PLENTY = 1 << 30


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, object]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay, callback, *args):
        self._timers.append((self.now + delay, lambda: callback(*args)))

    def pass_by(self, seconds: float) -> None:
        """Let time pass and ring what is due."""
        self.now += seconds
        due = [timer for timer in self._timers if timer[0] <= self.now]
        self._timers = [timer for timer in self._timers if timer[0] > self.now]
        for _, ring in due:
            ring()


@pytest.fixture
def clock():
    """A clock."""
    return Clock()


@pytest.fixture
def journal(tmp_path, clock):
    """An empty journal."""
    journal = Journal(tmp_path / "session", tmp_path / "logs" / "text.log", clock)
    yield journal
    journal.close()


def seen(journal, since=0, max_bytes=PLENTY):
    """The messages, short: their cell, type and what matters of their content."""
    return [(m.cell, m.type, short(m)) for m in journal.since(since, max_bytes)[0]]


def short(message):
    """A stream's text, a flood's count, anything else's JSON."""
    content = json.loads(message.content)
    return {"stream": lambda: content["text"], "flood": lambda: content["lines"]}.get(message.type, lambda: content)()


def test_text_is_published_at_once_and_then_ten_times_a_second(journal, clock):
    """The first line is not delayed; what follows within a tenth of a second is one message."""
    journal.text("c", "stdout", "first\n")
    assert seen(journal) == [("c", "stream", "first\n")]
    for number in range(100):
        journal.text("c", "stdout", f"{number}\n")
    assert len(seen(journal)) == 1
    clock.pass_by(0.1)
    assert seen(journal, since=1) == [("c", "stream", "".join(f"{n}\n" for n in range(100)))]


def test_other_messages_do_not_wait_and_do_not_overtake(journal):
    """A display is published at once, with the text before it."""
    journal.text("c", "stdout", "one\n")
    journal.text("c", "stdout", "two\n")
    journal.text("c", "stderr", "oops\n")
    journal.add("c", "display_data", b"1")
    assert seen(journal) == [
        ("c", "stream", "one\n"),
        ("c", "stream", "two\n"),
        ("c", "stream", "oops\n"),
        ("c", "display_data", 1),
    ]


def test_text_of_two_cells_is_not_mixed(journal, clock):
    """Each piece keeps its cell and its stream, in order."""
    journal.text("x", "stdout", "0")
    for cell, text in [("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")]:
        journal.text(cell, "stdout", text)
    clock.pass_by(1)
    assert seen(journal, since=1) == [("a", "stream", "12"), ("b", "stream", "3"), ("a", "stream", "4")]


def test_a_flood_is_counted_and_its_end_shown(journal, clock, tmp_path):
    """Beyond the head the lines are counted, in one message that each later one replaces; the log has all."""
    lines = [f"line {n}\n" for n in range(10 * HEAD_LINES)]
    for line in lines:
        journal.text("c", "stdout", line)
        clock.pass_by(0.001)
    journal.finish("c", b"{}")
    found = seen(journal)
    assert "".join(text for _, kind, text in found if kind == "stream") == "".join(lines[:HEAD_LINES])
    assert [(kind, content) for _, kind, content in found if kind != "stream"] == [
        ("flood", 9 * HEAD_LINES),
        ("reply", {}),
    ]
    [flood] = [json.loads(m.content) for m in journal.since(0, PLENTY)[0] if m.type == "flood"]
    assert flood["tail"].split("\n")[-2] == "line 9999"
    assert (tmp_path / "logs" / "text.log").read_text() == "".join(lines)


def test_a_flood_is_told_of_while_it_lasts(journal, clock):
    """Who reads meanwhile sees the count grow, twice a second."""
    journal.text("c", "stdout", "x\n" * HEAD_LINES)
    last, counts = 0, []
    for _ in range(40):
        journal.text("c", "stdout", "y\n")
        clock.pass_by(0.1)
        for message in journal.since(last, PLENTY)[0]:
            last = message.seq
            counts += [json.loads(message.content)["lines"]] if message.type == "flood" else []
    assert counts == sorted(set(counts))
    assert 6 <= len(counts) <= 10


def test_a_line_without_end_is_bounded_too(journal):
    """A million characters without a newline are a flood as well."""
    journal.text("c", "stdout", "x" * 1_000_000)
    journal.finish("c", b"{}")
    shown = "".join(text for _, kind, text in seen(journal) if kind == "stream")
    assert len(shown) == HEAD_CHARS


def test_carriage_returns_leave_the_last_state_in_the_tail(journal):
    """The end of a progress bar is its last state."""
    journal.text("c", "stdout", "x\n" * HEAD_LINES)
    journal.text("c", "stdout", "one more\n\r10%\r50%\r100%")
    journal.finish("c", b"{}")
    [flood] = [json.loads(m.content) for m in journal.since(0, PLENTY)[0] if m.type == "flood"]
    assert flood["tail"] == "one more\n100%"


def test_an_answer_keeps_to_its_budget_and_the_next_goes_on(journal):
    """Every answer is bounded, but has at least one message."""
    for number in range(10):
        journal.add("c", "display_data", json.dumps("x" * 1000 * (1 + number % 3)).encode())
    last, parts = 0, []
    while part := journal.since(last, 2500)[0]:
        parts.append(part)
        last = part[-1].seq
    assert [m.seq for part in parts for m in part] == list(range(1, 11))
    assert all(sum(m.size for m in part) <= 2500 or len(part) == 1 for part in parts)


def test_what_no_longer_fits_memory_comes_from_disk(journal):
    """Displays are never dropped; only the latest are in memory, with their buffers."""
    count = 3 * MEMORY // 100_000
    for number in range(count):
        journal.add("c", "display_data", json.dumps(number).encode(), (bytes([number % 256]) * 100_000, b"\n\n"))
    found = journal.since(0, PLENTY)[0]
    assert [json.loads(m.content) for m in found] == list(range(count))
    assert all(m.buffers == (bytes([number % 256]) * 100_000, b"\n\n") for number, m in enumerate(found))
    assert sum(m.size for m in journal._messages._recent) <= MEMORY + 200_000


@contextlib.contextmanager
def no_file_beyond(size):
    """The system refuses to make files larger, as a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [500, 100_000])
def test_a_full_disk_loses_no_message(journal, caplog, size):
    """What cannot be written stays in memory, what was written can be read, and the log says so once."""
    count = 4 * MEMORY // (size + 200)
    with no_file_beyond(2 * MEMORY + size // 2):
        for number in range(count):
            journal.add("c", "display_data", json.dumps("x" * size + str(number)).encode())
        assert [m.seq for m in journal.since(0, PLENTY)[0]] == list(range(1, count + 1))
    assert caplog.text.count("keeping messages in memory") == 1


def test_text_for_which_there_is_no_file_is_kept(tmp_path, journal, clock):
    """The first text of a session comes when a quota is exceeded, or its directory was purged: it arrives, and so does the end."""
    shutil.rmtree(tmp_path / "session")
    journal.text("c", "stdout", "one\n")
    clock.pass_by(1)
    journal.text("c", "stdout", "two\n")
    journal.finish("c", b"{}")
    assert seen(journal) == [("c", "stream", "one\n"), ("c", "stream", "two\n"), ("c", "reply", {})]


def test_old_text_stays_where_there_is_no_room_for_its_count(tmp_path, clock, monkeypatch):
    """The disk is full in the moment in which the oldest text should make room."""
    monkeypatch.setattr(messages_module, "MEMORY", 1000)
    monkeypatch.setattr(messages_module, "SEGMENT", 2000)
    monkeypatch.setattr(messages_module, "SEGMENTS", 2)
    journal = Journal(tmp_path / "session", tmp_path / "log", clock)
    journal.add("c", "display_data", json.dumps("x" * 5000).encode())
    with no_file_beyond((tmp_path / "session" / "journal").stat().st_size + 20):
        for number in range(40):
            journal.text("c", "stdout", f"{number}" + "x" * 200 + "\n")
            clock.pass_by(1)
        assert [text.strip("x\n") for _, kind, text in seen(journal) if kind == "stream"] == [str(n) for n in range(40)]
    journal.close()


def test_files_are_the_users_alone(tmp_path, journal):
    """The directory is 0700 and the files 0600, whatever the umask."""
    paths = [tmp_path / name for name in ("session", "session/journal", "logs", "logs/text.log")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o700, 0o600, 0o700, 0o600]


async def test_waiting_ends_with_the_next_message_or_in_time(journal):
    """Who waits is told at once, and is not kept for ever."""
    import asyncio

    await journal.wait(0, 0.01)
    waiting = asyncio.ensure_future(journal.wait(0, 10))
    await asyncio.sleep(0)
    assert not waiting.done()
    journal.add("c", "display_data", b"1")
    await asyncio.wait_for(waiting, 9)


def test_the_messages_of_one_cell(journal, clock):
    """One cell's messages can be asked for alone; the answer says up to where it is complete."""
    for number in range(5):
        for cell in "ab":
            journal.add(cell, "display_data", f"{number}".encode())
    found, upto = journal.since(0, PLENTY, "b")
    assert [(m.cell, m.content) for m in found] == [("b", f"{number}".encode()) for number in range(5)]
    assert upto == journal.seq
    part, upto = journal.since(0, 1, "b")
    assert (len(part), upto) == (1, part[0].seq)
    assert journal.since(journal.seq, PLENTY, "b") == ([], journal.seq)
    assert journal.since(0, PLENTY, "unheard of") == ([], journal.seq)


def test_the_oldest_text_makes_room(tmp_path, clock, monkeypatch):
    """Of text so much is kept on disk and no more; displays and errors all stay, and in place of the text is its size."""
    monkeypatch.setattr(messages_module, "MEMORY", 1000)
    monkeypatch.setattr(messages_module, "SEGMENT", 2000)
    monkeypatch.setattr(messages_module, "SEGMENTS", 3)
    journal = Journal(tmp_path / "session", tmp_path / "log", clock)
    for number in range(100):
        cell = f"cell-{number}"
        journal.text(cell, "stdout", f"{number} begins\n")
        clock.pass_by(1)
        journal.add(cell, "display_data", f"{number}".encode())
        journal.text(cell, "stdout", "x" * 200 + "\n")
        clock.pass_by(1)
        journal.add(cell, "error", f"{number}".encode())
        journal.finish(cell, b"{}")
    found, _ = journal.since(0, PLENTY)
    assert [m.seq for m in found] == sorted({m.seq for m in found})
    for kind in ("display_data", "error"):
        assert [m.content for m in found if m.type == kind] == [f"{number}".encode() for number in range(100)]
    texts = sorted((tmp_path / "session").glob("text-*"))
    assert len(texts) <= 3
    assert sum(path.stat().st_size for path in texts) < 3 * 2500
    told, lines = {}, {}
    for message in found:
        content = json.loads(message.content)
        if message.type == "compacted":
            told[message.cell] = told.get(message.cell, 0) + content["lines"]
        if message.type == "stream":
            lines[message.cell] = lines.get(message.cell, 0) + content["text"].count("\n")
    assert {cell: told.get(cell, 0) + lines.get(cell, 0) for cell in told | lines} == {
        f"cell-{n}": 2 for n in range(100)
    }
    assert "cell-0" not in lines
    assert "cell-99" not in told
    assert [m.type for m in journal.since(0, PLENTY, "cell-0")[0]] == ["compacted", "display_data", "error", "reply"]
    assert (tmp_path / "log").read_text().count("begins") == 100
    journal.close()


EVENTS = st.one_of(
    st.tuples(st.just("text"), st.sampled_from("ab"), st.sampled_from(["stdout", "stderr"]), st.text(max_size=30)),
    st.tuples(st.just("add"), st.sampled_from("ab"), st.integers()),
    st.tuples(st.just("pass"), st.floats(0, 1)),
    st.tuples(st.just("read"), st.integers(1, 3000)),
    st.tuples(st.just("finish"), st.sampled_from("ab")),
)


@settings(max_examples=60)
@given(events=st.lists(EVENTS, max_size=60), memory=st.integers(100, 2000))
def test_readers_miss_nothing_and_see_nothing_twice(events, memory, tmp_path_factory):
    """Whatever is written and however it is read: all text and all other messages arrive once, in order."""
    clock, path = Clock(), tmp_path_factory.mktemp("j")
    before, messages_module.MEMORY = messages_module.MEMORY, memory
    try:
        journal = Journal(path, path / "log", clock)
        written, got, last = {}, [], 0
        others = []
        for kind, *rest in [*events, ("pass", 1.0), ("read", PLENTY)]:
            if kind == "text":
                journal.text(*rest)
                written.setdefault(tuple(rest[:2]), []).append(rest[2])
            elif kind == "add":
                journal.add(rest[0], "display_data", json.dumps(rest[1]).encode())
                others.append((rest[0], "display_data", rest[1]))
            elif kind == "finish":
                journal.finish(rest[0], b"0")
                others.append((rest[0], "reply", 0))
            elif kind == "pass":
                clock.pass_by(rest[0])
            else:
                got += journal.since(last, rest[0])[0]
                last = got[-1].seq if got else 0
        journal.close()
    finally:
        messages_module.MEMORY = before
    assert [m.seq for m in got] == sorted({m.seq for m in got})
    assert [(m.cell, m.type, json.loads(m.content)) for m in got if m.type != "stream"] == others
    texts = {}
    for message in got:
        if message.type == "stream":
            content = json.loads(message.content)
            texts.setdefault((message.cell, content["name"]), []).append(content["text"])
    joined = {key: "".join(parts) for key, parts in written.items()}
    assert {key: "".join(parts) for key, parts in texts.items()} == {k: v for k, v in joined.items() if v}
