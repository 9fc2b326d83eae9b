"""What tasks print, in JupyterLab: in their own cells, at once, and a flood leaves the page in its user's hands."""

from __future__ import annotations

import re
import statistics

import pytest

from tests.figures import patient
from tests.site.account import until

pytestmark = pytest.mark.slow

LOAD = "%load_ext hpcnb\nimport hpcnb as hpc, os, time"
CLICK = 0.3
"""Seconds within which a click answers."""
PROMPT = 1.0
"""Seconds from a worker's print to the browser, of 95 lines in a hundred."""

ANSWER = """() => new Promise(answered => {
    const began = performance.now(), button = document.createElement('button');
    button.onclick = () => requestAnimationFrame(() => { button.remove(); answered((performance.now() - began) / 1000); });
    document.body.append(button);
    setTimeout(() => button.click());
})"""
"""How long a click takes until what it does is painted."""

ARRIVALS = """cell => {
    const arrivals = cell.arrivals = {};
    const note = () => {
        for (const [, sent] of cell.querySelector('.jp-OutputArea').textContent.matchAll(/at ([\\d.]+)/g))
            arrivals[sent] ??= Date.now() / 1000 - sent;
    };
    new MutationObserver(note).observe(cell, {subtree: true, childList: true, characterData: true});
}"""
"""Keeps for each line that tells when it was printed, how much later it was there."""


@pytest.fixture(scope="module", autouse=True)
def cluster(lab):
    """One that the notebooks find."""
    lab.command("up", "--workers-per-node", "1", "--cores-per-worker", "2")


@pytest.mark.alone
def test_lines_are_there_at_once(notebook, figure):
    """From a worker's print to the page it takes less than a second, in 95 cases of 100."""
    page = notebook(
        LOAD,
        "def ticks(n):\n    for _ in range(n):\n        print('at', time.time())\n        time.sleep(0.05)",
        "future = hpc.submit(ticks, 60)",
        "future.result()\nprint('done')",
    )
    for number in (0, 1):
        page[number].run().wait()
    page[2]._found.evaluate(ARRIVALS)
    page[2].run().wait()
    page[3].run().wait_for("done")
    until(lambda: len(page[2]._found.evaluate("cell => cell.arrivals")) == 60)
    late = statistics.quantiles(page[2]._found.evaluate("cell => cell.arrivals").values(), n=20)[-1]
    figure(f"a worker's print is on the page within {late:.2f} s (p95)")
    assert late < patient(PROMPT)


@pytest.mark.alone
def test_a_flood_of_a_task(notebook, figure):
    """A million lines of one task: a click answers meanwhile, the cell shows their first and last, the logs have all."""
    page = notebook(
        LOAD,
        "def flood(n):\n    for i in range(n): print('line', i)\nfuture = hpc.submit(flood, 10**6)",
        "future.result()\nprint('done')",
        "logs = future.logs().splitlines()\nprint(len(logs), logs[-1])",
    )
    page[0].run().wait()
    page[1].run().wait()
    page[2].run()
    clicks = []
    while "done" not in page[2].text:
        clicks.append(page.page.evaluate(ANSWER))
    figure(f"a click answered within {max(clicks):.2f} s, of {len(clicks)}, while 10⁶ lines were printed")
    assert statistics.median(clicks) < patient(CLICK)
    page[1].wait_for("line 999999")
    (first,) = page[1].outputs('[data-mime-type="application/vnd.jupyter.stdout"]').all_inner_texts()
    counted = re.search(r"… (.*) lines, see `future.logs\(\)` of flood", page[1].text)
    assert first.splitlines() == [f"line {i}" for i in range(10**6 - int(counted[1].replace(",", "")))]
    assert 1000 <= len(first.splitlines()) < 1500
    page[3].run().wait(patient(60)).shows("1000000 line 999999")


def test_several_tasks_and_the_explorer(notebook):
    """Lines say whose they are, what was logged is red; the explorer finds them, and searches while one types."""
    page = notebook(
        LOAD,
        "import logging\ndef grumble(x):\n    print('fine <b>', x)\n    logging.getLogger('mine').warning('careful %s', x)\n"
        "_ = hpc.gather(hpc.map(grumble, range(3)))",
        "%hpc explore grumble",
    )
    page[0].run().wait()
    page[1].run().wait().wait_for(re.compile(r"grumble\[2\] on .*: careful 2"))
    assert any("careful 0" in text for text in page[1].errors)
    page[2].run().wait().wait_for("fine <b> 1").wait_for("careful 2")
    found = page[2]._found
    search = found.get_by_placeholder("search (regular expression)")
    search.fill("fine.*1")
    search.press("Enter")
    until(lambda: "careful" not in page[2].text)
    page[2].wait_for("fine <b> 1")
