"""Render a job request as the arguments of `sbatch`. Pure.

Options go as arguments, never as ``#SBATCH`` text, where a newline in a name would be a command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpcnb.errors import SubmissionRejected
from hpcnb.model import Resources
from hpcnb.site.batch import JobRequest

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOKEN = re.compile(r"[0-9a-f]{32}")
_OPTION = re.compile(r"--[a-z][a-z0-9-]*")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

OURS = (
    *("--array", "--chdir", "--clusters", "--comment", "--dependency", "--error", "--export", "--export-file"),
    *("--get-user-env", "--gid", "--help", "--input", "--job-name", "--jobid", "--no-requeue", "--ntasks"),
    *("--ntasks-per-node", "--output", "--parsable", "--requeue", "--tasks-per-node", "--test-only", "--uid"),
    *("--usage", "--version", "--wait", "--wrap"),
)
"""Options that decide whether we find a job again, and its log: nobody else sets them."""

WORDS = {
    "--account": "account",
    "--nodes": "nodes",
    "--partition": "partition",
    "--qos": "qos",
    "--time": "walltime",
}
"""Options that have a word of their own, by which alone they are given."""


def sbatch_argv(request: JobRequest, *, site: str = "") -> list[str]:
    """Return the whole `sbatch` command of a request.

    One task per node holds all the cores of its node, so that ``srun --cpus-per-task=$SLURM_CPUS_ON_NODE``
    inside starts one process per node with all of them.

    Raises
    ------
    SubmissionRejected
        A value cannot be passed on safely, or an option is hpcnb's own.
    """
    _check(request, site)
    words = ["sbatch", *_fixed(request), *_asked(request.resources)]
    words += _options(request.resources, set(words), site)
    return [*words, request.script]


def minutes(seconds: int) -> int:
    """Slurm's unit of walltime, rounded up."""
    return max(1, -(-seconds // 60))


def _fixed(request: JobRequest) -> Iterator[str]:
    yield "--parsable"
    # ALL of an environment that `hpcnb.site.slurm` makes small. With NONE the node would spend up to two minutes
    # on a login shell of its own, and `srun` inside would start tasks without a PATH.
    yield "--export=ALL"
    # The login node's limits (CPU time, open files) are not meant for a job.
    yield "--propagate=NONE"
    # A job that ran twice would be two pilots in one run directory.
    yield "--no-requeue"
    yield f"--job-name={request.name}"
    yield f"--comment={request.token}"
    yield f"--chdir={request.directory}"
    yield f"--output={request.log.replace('%', '%%')}"


def _asked(resources: Resources) -> Iterator[str]:
    yield f"--nodes={resources.nodes}"
    yield "--ntasks-per-node=1"
    yield f"--time={minutes(resources.walltime)}"
    if resources.cores_per_node is not None:
        yield f"--cpus-per-task={resources.cores_per_node}"
    if resources.memory_per_node is not None:
        yield f"--mem={-(-resources.memory_per_node // 2**20)}M"
    if resources.gpus_per_node:
        yield f"--gpus-per-node={resources.gpus_per_node}"
    for name in ("partition", "account", "qos"):
        if value := getattr(resources, name):
            yield f"--{name}={value}"


def _options(resources: Resources, words: set[str], site: str) -> Iterator[str]:
    taken = {*OURS, *(word.partition("=")[0] for word in words if word.startswith("--"))}
    for name, value in resources.options.items():
        if not _OPTION.fullmatch(name):
            raise _refused(f"{name!r} is not an option of sbatch", site, "Write it in full: --constraint, --exclusive.")
        if word := _meant(name, WORDS):
            raise _refused(f"the option {name} has a word of its own", site, f"Use {WORDS[word]}= instead.")
        if _meant(name, taken):
            raise _refused(f"the option {name} is set by hpcnb itself", site, "Leave it out.")
        yield f"{name}={value}" if value else name


def _meant(name: str, options: set[str] | dict[str, str]) -> str:
    # sbatch accepts every abbreviation: --out is --output.
    return next((option for option in sorted(options) if option.startswith(name)), "")


def _check(request: JobRequest, site: str) -> None:
    if not _NAME.fullmatch(request.name):
        raise _refused(f"{request.name!r} cannot be a job's name", site, "Use up to 64 of A-Z a-z 0-9 . _ -")
    if not _TOKEN.fullmatch(request.token):
        raise _refused(f"{request.token!r} is not a run id", site, "")
    for path in (request.script, request.directory, request.log):
        # In --output a backslash anywhere switches the meaning of % off.
        if not path.startswith("/") or "\\" in path or _UNSAFE.search(path):
            raise _refused(
                f"{path!r} cannot be a path of a job", site, "Choose an absolute path without such characters."
            )
    _check_words(request.resources, site)
    _check_amounts(request.resources, site)


def _check_words(resources: Resources, site: str) -> None:
    words = {"partition": resources.partition, "account": resources.account, "qos": resources.qos}
    for word, value in (*words.items(), *resources.options.items()):
        if _UNSAFE.search(value):
            raise _refused(f"{value!r} cannot be the value of {word}", site, "Leave out control characters.")


def _check_amounts(resources: Resources, site: str) -> None:
    for word in ("nodes", "walltime", "cores_per_node", "memory_per_node"):
        amount = getattr(resources, word)
        if amount is not None and amount < 1:
            raise _refused(f"{word} is {amount}", site, f"Ask for {word} of 1 or more.")
    if resources.gpus_per_node < 0:
        raise _refused(f"gpus_per_node is {resources.gpus_per_node}", site, "Ask for 0 or more.")


def _refused(what: str, site: str, remedy: str) -> SubmissionRejected:
    return SubmissionRejected(what, where=f"site {site}" if site else "", remedy=remedy)
