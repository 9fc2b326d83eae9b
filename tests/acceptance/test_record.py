"""A page that comes later is told what cells have shown, exactly: by a real kernel, also while it is busy."""

from __future__ import annotations

import re
import time

import pytest
from jupyter_client.manager import start_new_kernel
from nbformat.v4 import output_from_msg

from hpcnb.notebook.record import ASKED, OURS, TOLD, Shown
from tests.acceptance.test_cells import SAMPLES
from tests.figures import patient
from tests.unit.pilot.host import environment

pytestmark = pytest.mark.slow

SOON = 30.0


class Front:
    """A front end, with a notebook whose cells it runs."""

    def __init__(self):
        self.manager, self.client = start_new_kernel(kernel_name="python3", env=environment())
        self.run("%load_ext hpcnb")

    @property
    def page(self):
        """Its connection, as the kernel knows it."""
        return self.client.session.session

    def begin(self, code, cell="cell"):
        """Run a cell, without waiting."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        message = self.client.session.msg("execute_request", content, metadata={"cellId": cell})
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def until(self, wanted):
        """All messages up to the one that is waited for."""
        messages, deadline = [], time.monotonic() + SOON
        while not (messages and wanted(messages[-1])):
            messages.append(self.client.get_iopub_msg(timeout=deadline - time.monotonic()))
        return messages

    def rest(self, request):
        """The messages of a cell to its end."""
        return self.until(
            lambda one: one["parent_header"]["msg_id"] == request and one["content"].get("execution_state") == "idle"
        )

    def run(self, code, cell="cell"):
        """Run a cell; its messages."""
        return self.rest(self.begin(code, cell))

    def tell(self, **content):
        """Say something to the record, without a question."""
        message = self.client.session.msg(ASKED, {OURS: content})
        self.client.control_channel.send(message)
        return message["header"]["msg_id"]

    def ask(self):
        """What the record tells of cells that are not saved, and the messages before."""
        self.tell(tell=True)
        *before, answer = self.until(lambda one: one["msg_type"] == TOLD)
        return answer["content"]["cells"], answer["content"]["number"], before


@pytest.fixture(scope="module")
def kernel():
    """A front end and its kernel."""
    front = Front()
    yield front
    front.client.stop_channels()
    front.manager.shutdown_kernel(now=True)


@pytest.fixture
def front(kernel):
    """The same, with nothing that is not saved."""
    _, number, _ = kernel.ask()
    kernel.tell(pages=[kernel.page], saved=number)
    assert kernel.ask()[0] == []
    return kernel


def told(messages):
    """Messages as the record tells of them."""
    kinds = ("stream", "display_data", "execute_result", "error", "update_display_data", "clear_output")
    return [{"type": one["msg_type"], "content": one["content"]} for one in messages if one["msg_type"] in kinds]


def left(messages):
    """Those messages that no later one has cleared."""
    found, clear = [], False
    for message in messages:
        clears = message["type"] == "clear_output"
        clear = clear or clears
        if clear and not (clears and message["content"]["wait"]):
            found, clear = [], False
        if not clears:
            found.append(message)
    return found


def shown(messages):
    """What a page shows of messages: as nbformat has it, streams joined, of a line that is written over the latest."""
    outputs, names = [], []
    for kind, content in ((one["type"], dict(one["content"])) for one in left(messages)):
        name = content.pop("transient", {}).get("display_id")
        if kind == "update_display_data":
            for index in [index for index, known in enumerate(names) if known == name]:
                outputs[index] = {**outputs[index], **content}
        elif kind == "stream" and outputs and outputs[-1].get("name") == content["name"]:
            outputs[-1]["text"] += content["text"]
        else:
            made = output_from_msg({"header": {"msg_type": kind}, "content": {"execution_count": None, **content}})
            outputs.append(dict(made))
            names.append(name)
    for output in outputs:
        if "text" in output:
            output["text"] = re.sub(r"[^\r\n]*\r(?=[^\r\n])", "", output["text"])
    return outputs


@pytest.mark.parametrize("name", SAMPLES)
def test_a_cell_is_told_as_it_was_shown(front, name):
    """Whatever a cell shows, and however it is updated, cleared or written over."""
    heard = front.run(SAMPLES[name].replace("\n        ", "\n").strip(), "sample")
    [cell], _, _ = front.ask()
    assert shown(cell["messages"]) == shown(told(heard))
    assert (cell["cell"], cell["page"], cell["running"], cell["whole"]) == ("sample", front.page, False, True)


def test_told_while_the_cell_runs(front):
    """A busy kernel answers; what it tells and what it sends afterwards is the whole, with nothing twice."""
    code = "import time\nfor i in range(200):\n    print(i, flush=True)\n    time.sleep(0.005)\nfailed"
    request = front.begin(code)
    front.until(lambda one: "20\n" in one["content"].get("text", ""))
    [cell], _, _ = front.ask()
    assert cell["running"]
    assert "199" not in cell["messages"][0]["content"]["text"]
    after = front.rest(request)
    states = [one["content"] for one in after if one["msg_type"] == "status"]
    assert states.count({"execution_state": "busy"}) == 1  # for a page that did not know
    stream, error = shown(cell["messages"] + told(after))
    assert stream["text"].split() == [str(i) for i in range(200)]
    assert error["ename"] == "NameError"


def test_what_is_saved_is_not_told_again(front):
    """But what changes afterwards is; and what another page has saved is nothing to go by."""
    front.run("shown = display('one', display_id=True)\nprint('said')")
    front.run("print('other')", "other")
    cells, number, _ = front.ask()
    front.tell(pages=["another page"], saved=number)
    front.tell(pages=[front.page], saved=number - 1)
    assert [cell["cell"] for cell in cells] == ["cell", "other"]
    assert [cell["cell"] for cell in front.ask()[0]] == ["other"]
    front.tell(pages=[front.page], saved=number)
    assert front.ask()[0] == []
    front.run("shown.update('two')", "later")
    first, later = front.ask()[0]
    assert [one["data"]["text/plain"] if "data" in one else one["text"] for one in shown(first["messages"])] == [
        "'two'",
        "said\n",
    ]
    assert later["messages"] == []


def test_run_again(front):
    """Of a cell that is run again only the later execution is told."""
    front.run("print('first')")
    front.run("print('second')")
    [cell], _, _ = front.ask()
    assert shown(cell["messages"])[0]["text"] == "second\n"


def test_too_much(front):
    """Of a cell that shows more than is kept only that is told, and it goes on as soon as it clears its output."""
    code = "from IPython.display import clear_output\nfor i in range(5): print('x' * 10**6, flush=True)"
    front.run(code)
    [cell], _, _ = front.ask()
    assert (cell["whole"], cell["messages"]) == (False, [])
    front.run(f"{code}\nclear_output()\nprint('little')")
    [cell], _, _ = front.ask()
    assert cell["whole"]
    assert shown(cell["messages"])[0]["text"] == "little\n"


def test_the_oldest_are_forgotten(front):
    """Where nobody says that he has saved, the kernel's memory is not filled."""
    front.run("from hpcnb.notebook import record\nrecord.MOST_OF_ALL, most = 5000, record.MOST_OF_ALL", "first")
    for i in range(8):
        front.run("print('x' * 500)", f"cell {i}")
    cells = [cell["cell"] for cell in front.ask()[0]]
    front.run("record.MOST_OF_ALL = most", "last")
    assert cells == ["cell 5", "cell 6", "cell 7"]


def test_a_progress_bar_is_its_last_state(front):
    """A line that is written over for hours takes no more room than one."""
    front.run("for i in range(10**4): print(f'\\r{i} of 10000', end='', flush=i % 100 == 0)")
    [cell], _, _ = front.ask()
    assert len(cell["messages"][0]["content"]["text"]) < 100
    assert shown(cell["messages"])[0]["text"] == "9999 of 10000"


def test_many_prints_cost_little():
    """What is printed in very many pieces is kept as they come, not copied for each."""
    shown, began = Shown(header={}, cell=""), time.process_time()
    for number in range(2 * 10**5):
        shown.add("stream", {"name": "stdout", "text": f"{number}\n"})
    assert time.process_time() - began < patient(5)
    assert shown.messages[0]["parts"][-1] == "199999\n"


def test_what_goes_to_a_widget_is_not_the_cells(front):
    """What an output widget has caught is the widget's, which a page gets from the kernel by itself."""
    front.run(
        "import ipywidgets\nout = ipywidgets.Output()\nprint('before')\nwith out: print('within')\nprint('after')"
    )
    [cell], _, _ = front.ask()
    assert shown(cell["messages"])[0]["text"] == "before\nafter\n"
