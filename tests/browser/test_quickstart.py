"""The quickstart notebook, as somebody who tries hpcnb for the first time sees it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

QUICKSTART = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"
UP, CLUSTER, PLOT, DOWN = 1, 5, 7, 9


def test_the_quickstart(notebook, tmp_path):
    """Run All Cells: the status is true from the start, the thresholds tighten, the plot is there, and no error."""
    page = notebook(path=QUICKSTART)
    page[UP].record()
    page[CLUSTER].record()
    page.run_all()
    page[UP].wait_for("requested", within=10)
    page[DOWN].wait(120)

    states = [re.match(r". quickstart on local:? (\w+)", sight["text"])[1] for sight in page[UP].history()[1:]]
    assert states[0] == "requested"
    assert states.count("ready") == 1
    assert states[-1] == "ready"
    assert set(states) <= {"requested", "queued", "starting", "ready"}
    assert len({sight["height"] for sight in page[UP].history()[1:]}) == 1

    counts = [re.search(r"([\d,]+) of 1,000 permutations +67 %: [\d.]+ +95 %: [\d.]+$", sight["text"]) for sight in page[CLUSTER].history()]
    shown = [int(count[1].replace(",", "")) for count in counts if count]
    assert len(shown) > 2
    assert shown == sorted(shown)
    assert shown[-1] == 1000

    assert page[PLOT].outputs(" img").count() == 1
    assert re.fullmatch(r". quickstart on local:? ended.*", page[DOWN].text)
    assert [page[i].errors for i in range(len(page))] == [[]] * len(page)
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        page.theme(theme)
        page.picture(tmp_path / f"{theme}.png")
