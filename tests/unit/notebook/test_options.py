"""The line of a `%%hpc` cell, and the lines of the cell."""

from __future__ import annotations

import pytest
from IPython.core.error import UsageError

from hpcnb.notebook.cells import numbered
from hpcnb.notebook.options import Options, parse


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("", Options()),
        ("-i a,b -o c", Options(inputs=("a", "b"), outputs=("c",))),
        ("-i a -i b,ü", Options(inputs=("a", "b", "ü"))),
        ("-o 'a, b'", Options(outputs=("a", "b"))),
        ("-s other --cluster fit", Options(session="other", cluster="fit")),
        ("--detach --quiet --timeout 1h30m", Options(detach=True, quiet=True, timeout=5400)),
        ("--timeout=90", Options(timeout=90)),
        ("-s main", Options()),
        ('--each "k in range(3)" -o a --quiet', Options(each="k in range(3)", outputs=("a",), quiet=True)),
        ("--each=\"k in {'u': 1}\"", Options(each="k in {'u': 1}")),
        ("--each ''", Options(each="")),
        ("-n node7 -o a", Options(node="node7", outputs=("a",))),
        ("-n 0 -i a", Options(node="0", inputs=("a",))),
        ("--all-workers --timeout 1m", Options(all_workers=True, timeout=60)),
    ],
)
def test_a_line_is_read(line, options):
    """Every option, in the ways in which people write it."""
    assert parse(line) == options


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--nonsense", "unrecognized arguments: --nonsense"),
        ("a b", "unrecognized arguments: a b"),
        ("--det", "unrecognized arguments: --det"),
        ("-i", "argument -i: expected one argument"),
        ("-i a.b", "'a.b' is not the name of a variable"),
        ("-o 'a b'", "'a b' is not the name of a variable"),
        ("--timeout never", "'never' is not a duration"),
        ("--timeout 0", "a cell needs more than no time"),
        ("-s 'x", "No closing quotation"),
        ("--each", "argument --each: expected one argument"),
        ("--each k in xs", "unrecognized arguments: in xs"),
        ("--each 'k in xs' -s main", "-s does not go with --each"),
        ("--each 'k in xs' --detach", "--detach does not go with --each"),
        ("--each 'k in xs' --each 'j in ys'", "--each stands once"),
        ("--each 'k in xs' -n 0", "-n does not go with --each"),
        ("--each 'k in xs' --all-workers", "--all-workers does not go with --each"),
        ("-n 0 --all-workers", "-n does not go with --all-workers"),
        ("-n 0 -s main", "-s does not go with -n"),
        ("--all-workers --detach", "--detach does not go with --all-workers"),
        ("-n 0 -n 1", "-n stands once"),
    ],
)
def test_a_wrong_line_is_explained(line, message):
    """The error says what is wrong."""
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert message in str(caught.value)


def test_a_wrong_option_shows_the_right_ones():
    """The usage is part of the message."""
    with pytest.raises(UsageError, match=r"usage: %%hpc \[-i a,b\] \[-o c,d\] \[-s SESSION\]"):
        parse("--nonsense")


@pytest.mark.parametrize(
    ("line", "body", "code"),
    [
        ("", "x\n", "# %%hpc\nx"),
        ("  -i  a ", "x\ny\n", "# %%hpc -i a\nx\ny"),
        ("", "\n\nx\n", "# %%hpc\n\n\nx"),
        ("", "%%timeit\nx\n", "%%timeit\nx"),
        ("", "\n %%bash\nls\n", "\n %%bash\nls"),
        ("-i a\nprint(1)", "x\n", "# %%hpc -i a print(1)\nx"),
    ],
)
def test_lines_keep_their_numbers(line, body, code):
    """The magic's line becomes a comment, unless another magic must come first."""
    assert numbered(line, body) == code
