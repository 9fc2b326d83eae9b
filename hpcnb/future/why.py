"""Why a future is not done, or how it ended, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcnb.errors import HPCError

__all__ = ["node_of", "why", "why_failed"]


def why_failed(name: str, error: BaseException) -> str:
    """What a call has died of, in one sentence.

    Examples
    --------
    >>> why_failed("fit", ZeroDivisionError("division by zero"))
    'fit has failed: ZeroDivisionError: division by zero'
    """
    if not isinstance(error, HPCError):
        said = " ".join(str(error).split())
        return f"{name} has failed: {type(error).__name__}" + (f": {said}" if said else "")
    where = f" ({error.where})" if error.where else ""
    remedy = f"; {error.remedy.rstrip('.')}" if error.remedy else ""
    return " ".join(f"{name} has failed: {error.what}{where}{remedy}".split())


def why(name: str, known: Mapping[str, Any], *, job: str = "") -> str:
    """How it stands with a call.

    Parameters
    ----------
    name : str
        The function's.
    known : mapping
        As `hpcnb.pilot.scheduler.known.Known.tell` tells it.
    job : str, optional
        The batch job of its worker.

    Examples
    --------
    >>> why("fit", {"state": "executing", "worker": "0-node1-2", "attempts": 2, "deaths": [], "before": []})
    'fit runs on worker 0-node1-2, attempt 2'
    """
    before = "".join(f"; {death}" for death in known["deaths"][-1:])
    return _stands(name, known, job) + before


def _stands(name: str, known: Mapping[str, Any], job: str) -> str:
    at = f"worker {known['worker']}" + (f" of job {job}" if job else "")
    attempt = f", attempt {known['attempts']}" if known["attempts"] > 1 else ""
    match known["state"]:
        case "executing":
            return f"{name} runs on {at}{attempt}"
        case "processing":
            before = f": it is at work on {', '.join(known['before'])}" if known["before"] else ""
            return f"{name} is with {at}, and runs there as soon as a core is free{before}{attempt}"
        case "waiting":
            more = ", …" if known["needs"] > len(known["first"]) else ""
            return f"{name} waits for {known['needs']} other calls: {', '.join(known['first'])}{more}"
        case "queued":
            return f"{name} waits for a free core: all are at work"
        case "no-worker":
            asks = ", ".join(f"{amount:g} {what}" for what, amount in known["asks"].items())
            return f"no worker that there is may run {name}" + (f": it asks for {asks}" if asks else "")
        case "memory":
            return f"{name} has finished on {at}{attempt}"
        case "erred":
            return f"{name} has failed" + (f" on {at}{attempt}" if known["worker"] else "")
    return f"the cluster knows nothing of {name} (any more)"


def node_of(worker: str) -> str:
    """The node of a worker, from its name: the number of its job, the node, its own number."""
    return worker.partition("-")[2].rpartition("-")[0]
