"""What a cell shows of what its tasks print: as it is, with labels, and cut where nobody could read it."""

from __future__ import annotations

import json
import threading

import pytest

from hpcnb import printed
from hpcnb.printed import CHARACTERS, LINES, Cell, Printed, show_with, streams

OUT, ERR, SHOWN = 1, 2, 3
LOG = "`future.logs()` of fit"


class Place:
    """A cell's output."""

    name = "cell"
    bounded = True

    def __init__(self):
        self.shown = []
        self.news = threading.Condition()

    def write(self, text, *, error):
        self._show(("error" if error else "text", text))

    def count(self, lines, tail, log, *, new):
        self._show(("new count" if new else "count", lines, tail, log))

    def show(self, kind, content):
        self._show((kind, content))

    def _show(self, what):
        with self.news:
            self.shown.append(what)
            self.news.notify_all()


@pytest.fixture
def clock(monkeypatch):
    """The seconds by which room is renewed."""
    clock = [0.0]
    monkeypatch.setattr(printed.time, "monotonic", lambda: clock[0])
    return clock


def entry(data, key="fit", member=None, attempt=1, stream=OUT, lines=0):
    """As it travels."""
    return (key, member, attempt, stream, 1.0, data.encode(), lines, len(data) if lines else 0, "0-node1-0")


def test_the_only_task_of_a_cell_is_shown_as_it_prints(clock):
    """Without a label, with what moves the cursor, and stderr as such, in order and in few messages."""
    place = Place()
    cell = Cell(place)
    task = cell.expect("fit", 1)
    for some in (entry("a\n"), entry("10 %\r"), entry("20 %"), entry("oh\n", stream=ERR), entry("b\n")):
        cell.add(task, some)
    cell.publish()
    assert place.shown == [("text", "a\n10 %\r20 %"), ("error", "oh\n"), ("text", "b\n")]
    cell.publish()
    assert len(place.shown) == 3


def test_of_several_each_line_is_labelled(clock):
    """Calls of one function by their number, attempts by theirs; a line is shown when it is whole."""
    place = Place()
    cell = Cell(place)
    fits, other = [cell.expect("fit", 2), cell.expect("fit", 1)], cell.expect("other", 1)
    cell.add(fits[0], entry("begun ", member=1))
    cell.add(other, entry("x\ny\n", key="o", attempt=2))
    cell.add(fits[1], entry("10 %\r20 %\r\n", key="f"))
    cell.add(fits[0], entry("ended\n", member=1))
    cell.publish()
    text = "other on node1, attempt 2: x\nother on node1, attempt 2: y\nfit[2] on node1: 20 %\nfit[1] on node1: begun ended\n"
    assert place.shown == [("text", text)]


def test_what_is_displayed_stands_among_what_is_printed(clock):
    """In order, with the worker's name; a flood of it is counted, as one of lines is."""
    place = Place()
    cell = Cell(place)
    task = cell.expect("cell", 1, "0-node1-0")
    content = {"data": {"text/plain": "42"}, "metadata": {}, "transient": {"display_id": "d"}}
    message = json.dumps({"kind": "execute_result", "content": content})
    cell.add(task, entry("a\n"))
    cell.add(task, entry(message, stream=SHOWN))
    cell.add(task, entry("b\n"))
    cell.publish()
    told = {"data": {"text/plain": "0-node1-0: 42"}, "metadata": {}, "transient": {"display_id": "0-node1-0-d"}}
    assert place.shown == [("text", "0-node1-0: a\n"), ("execute_result", told), ("text", "0-node1-0: b\n")]
    for _ in range(LINES):
        cell.add(task, entry(message, stream=SHOWN))
    cell.publish()
    assert place.shown[-1] == ("new count", 3, "", "`%hpc logs worker-0-node1-0`")


def test_a_flood_is_its_beginning_a_count_and_its_end(clock):
    """One count for each flood, updated in place; when it has been quiet for a while, lines are shown again."""
    place = Place()
    cell = Cell(place)
    task = cell.expect("fit", 1)
    cell.add(task, entry("".join(f"{i}\n" for i in range(LINES + 10))))
    cell.publish()
    cell.add(task, entry("more\n", lines=5))
    cell.publish()
    assert place.shown == [
        ("text", "".join(f"{i}\n" for i in range(LINES))),
        ("new count", 10, "".join(f"{i}\n" for i in range(LINES + 5, LINES + 10)), LOG),
        ("count", 15, "".join(f"{i}\n" for i in range(LINES + 6, LINES + 10)) + "more\n", LOG),
    ]
    clock[0] += 5
    cell.add(task, entry("too soon\n"))
    clock[0] += 10
    cell.add(task, entry("again\n"))
    cell.publish()
    assert [what for what, *_ in place.shown[3:]] == ["count", "text"]
    assert place.shown[3][1] == 16
    clock[0] += 100
    cell.add(task, entry("z" * (CHARACTERS + 7)))
    cell.publish()
    assert len(place.shown[-2][1]) == CHARACTERS
    assert place.shown[-1][:2] == ("new count", 1)


def test_a_flood_that_goes_on_makes_no_room_for_itself(clock):
    """Only where it is quiet for a while, lines are shown again; and a cell shows no more than a page bears."""
    place = Place()
    cell = Cell(place)
    task = cell.expect("fit", 1)
    for _ in range(100):
        cell.add(task, entry("line\n" * 200))
        clock[0] += 1
    cell.publish()
    assert "".join(text for what, text, *_ in place.shown if what == "text").count("\n") < 1.5 * LINES
    for _ in range(100):
        clock[0] += 100
        cell.add(task, entry("line\n" * LINES))
        cell.publish()
    assert "".join(text for what, text, *_ in place.shown if what == "text").count("\n") < printed.MOST + LINES


def test_a_script_is_shown_all(capsys):
    """As it would be if it ran here."""
    cell = Cell(streams())
    task = cell.expect("fit", 1)
    cell.add(task, entry("line\n" * 3000))
    cell.add(task, entry("oh\n", stream=ERR))
    cell.publish()
    out, err = capsys.readouterr()
    assert (out, err) == ("line\n" * 3000, "oh\n")


def test_messages_are_few_and_each_cell_has_its_own():
    """What comes while nothing may be shown is shown together; who waits for a result waits for what was printed before."""
    taken, places = [], [Place(), Place()]
    places[1].name = "other"
    hears = Printed(taken.append)
    try:
        for place, key in zip(places, "ab", strict=True):
            show_with(lambda place=place: place)
            hears.expect([(key, "fit", 1, "")])
        for number in range(100):
            hears.take([entry(f"{number}\n", key="a"), entry("unknown\n", key="?")], 10, number, again=False)
        hears.take([entry("mine\n", key="b")], 1, 100, again=False)
        hears.settle()
    finally:
        show_with(streams)
    assert "".join(text for _, text in places[0].shown) == "".join(f"{number}\n" for number in range(100))
    assert len(places[0].shown) < 10
    assert places[1].shown == [("text", "mine\n")]
    assert sum(taken) == 1001


def test_over_a_new_connection_nothing_comes_twice():
    """Until the scheduler has answered from where this side was, what it tells by itself is left to that answer."""
    hears = Printed(lambda size: None)
    assert hears.returning() is None
    hears.take([], 0, 7, again=False)
    assert hears.returning() == 7
    hears.take([entry("new\n")], 1, 9, again=False)
    assert hears.returning() == 7
    hears.take([], 0, 9, again=True)
    assert hears.returning() == 9
