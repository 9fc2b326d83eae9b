"""What `sbatch` means when it fails: a no, and to what, or no answer at all. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence


class Refusal(enum.Enum):
    """What a failed `sbatch` was about."""

    UNHEARD = "the batch system may not have been asked at all, or have said yes"
    UNCLEAR = "words that we do not know"
    MISSING = "there is no sbatch"
    LOST = "there is an sbatch that does not know its cluster"
    PARTITION = "the partition"
    ACCOUNT = "the account"
    QOS = "the quality of service"
    WALLTIME = "the walltime"
    NODES = "nodes of that kind or number"
    GPUS = "GPUs"
    OPTION = "an option or its value"
    POLICY = "a limit of the site's policy"


# In this order: some messages hold the words of another. `sbatch` prints its own complaint first and
# `Batch job submission failed: …` after it.
_WORDS: Mapping[Refusal, Sequence[str]] = {
    Refusal.LOST: ("establish a configuration source", "unable to process configuration"),
    Refusal.UNHEARD: (
        *("unable to contact", "timed out", "zero bytes were transmitted", "connection refused", "connection reset"),
        *("connection failure", "not connected", "unexpected message", "temporarily unable to accept"),
        *("temporarily unavailable", "protocol authentication error", "munge", "standby mode"),
    ),
    Refusal.ACCOUNT: ("invalid account",),
    Refusal.QOS: ("invalid qos",),
    Refusal.PARTITION: (
        *("invalid partition", "group not permitted to use this partition"),
        *("requested partition configuration not available", "no default partition"),
    ),
    Refusal.WALLTIME: ("time limit is invalid", "time limit exceeds"),
    Refusal.GPUS: ("invalid generic resource",),
    Refusal.POLICY: ("job violates accounting/qos policy",),
    Refusal.NODES: (
        *("node count specification invalid", "more processors requested than permitted"),
        *("node configuration is not available", "memory specification can not be satisfied"),
    ),
    Refusal.OPTION: (
        *("unrecognized option", "ambiguous", "specification"),
        *("reservation is invalid", "unable to open file", "invalid argument"),
    ),
}


def refusal(returncode: int, stderr: str) -> Refusal:
    """Say what a failed `sbatch` was about.

    Examples
    --------
    >>> refusal(1, "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation").name
    'UNHEARD'
    """
    if returncode in (126, 127):
        return Refusal.MISSING
    # 124 and 137 are those of `timeout`; a negative one is a signal's.
    if returncode in (124, 137) or returncode < 0:
        return Refusal.UNHEARD
    text = stderr.lower()
    return next((meaning for meaning, said in _WORDS.items() if any(map(text.__contains__, said))), Refusal.UNCLEAR)


def complaint(stderr: str) -> str:
    """The first complaint of a command, without its own name before it.

    Examples
    --------
    >>> complaint("sbatch: error: Batch job submission failed: Invalid qos specification")
    'Invalid qos specification'
    """
    lines = [line.partition("error: ")[2] or line for line in stderr.splitlines() if line.strip()]
    return lines[0].strip().removeprefix("Batch job submission failed: ") if lines else "no reason given"


def remedy(why: Refusal, *, site: str, known: str) -> str:
    """What to do about a no; `known` lists what the site has of the thing refused."""
    entry = f"the entry of site {site!r} in ~/.config/dask/hpcnb.yaml"
    if why is Refusal.MISSING:
        return (
            f"If this machine has no Slurm, set batch: process in {entry}. If Slurm comes by a module there, "
            "load it in ~/.profile, so that a login shell finds sbatch."
        )
    if why is Refusal.PARTITION:
        return (
            f"Partitions there: {known}. Change partition= or {entry}." if known else f"Change partition= or {entry}."
        )
    if why in (Refusal.ACCOUNT, Refusal.QOS, Refusal.POLICY):
        words = {Refusal.ACCOUNT: "account=", Refusal.QOS: "qos="}.get(why, "account=, qos=, nodes= or walltime=")
        accounts = f"Your accounts there: {known}." if known else "The site names no accounts of yours."
        return f"{accounts} Change {words} or {entry}."
    return f"{_ADVICE[why]} Nothing was submitted."


_ADVICE = {
    Refusal.LOST: "Use a host from which sbatch works by hand; if this is one, its slurmctld does not answer now.",
    Refusal.WALLTIME: "Ask for less walltime=.",
    Refusal.NODES: "Ask for fewer nodes=, cores_per_node= or less memory_per_node=.",
    Refusal.GPUS: "Ask for fewer gpus_per_node=, or a partition that has GPUs.",
    Refusal.OPTION: "Change the entry of options= that the message names.",
    Refusal.UNCLEAR: "The words are the site's own; its documentation or help desk knows them.",
}
