"""Jobs that are to drain a queue: their shape, and what goes along, certificates and a function."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cloudpickle

from hpcnb import config, handle
from hpcnb.errors import CannotSerialize, QueueError
from hpcnb.model import ClusterSpec
from hpcnb.pilot.queue.wire import OWNER, WORKER
from hpcnb.queue.desk import Desk
from hpcnb.queue.shape import shapes, taken
from hpcnb.views.launch import launched_text, shapes_text

_LIFETIME = 3600 * 24 * 3650


def certify(desk: Desk, name: str) -> None:
    """See to it that a queue has certificates for its owner and its workers."""
    if desk("certified", name=name):
        return
    from hpcnb.site.authority import Authority, Role  # cryptography is dear

    authority = Authority.create(f"queue {name}")
    files = {"ca.pem": authority.certificate}
    for role in (OWNER, WORKER):
        identity = authority.issue(Role(role), lifetime=_LIFETIME)
        files |= {f"{role}.pem": identity.certificate, f"{role}.key": identity.key}
    desk("certify", name=name, files=files)


class Launched(list[str]):
    """The ids of the jobs that were submitted to drain a queue; shown, it says what they are, and why so."""

    def __init__(self, ids: Sequence[str], said: str) -> None:
        super().__init__(ids)
        self._said = said

    def __repr__(self) -> str:
        return self._said

    __str__ = __repr__


def plan(
    count: int,
    *,
    pack: bool,
    nodes: int | None,
    queued: int | None,
    core_hours: float | None,
    wishes: dict[str, Any],
) -> tuple[int, dict[str, Any]]:
    """How many jobs are meant, and what each asks for.

    Raises
    ------
    QueueError
        It makes no sense.
    """
    said = ", ".join(f"{word}={value}" for word, value in (("nodes", nodes), ("queued", queued)) if value is not None)
    asked = f"launch({count}{', pack=True' * pack}{', ' * bool(said)}{said})"
    if core_hours is not None:
        if count != 1 or pack or queued:
            raise QueueError("core_hours= is about one job", remedy="Leave out the count, pack= and queued=.")
        if isinstance(core_hours, bool) or not 0 < core_hours < 1e9:
            raise QueueError(f"core_hours={core_hours!r}", remedy="Give a number: cores times hours.")
        return 1, {"nodes": nodes} | wishes
    if count < 1 or (nodes or 1) < 1 or ((nodes or 1) > 1 and not pack):
        raise QueueError(asked, remedy="nodes= of 2 and more are for pack=True.")
    if queued is not None and (queued < 1 or pack):
        raise QueueError(
            asked, remedy="queued= says how many of several jobs wait at a time: 1 or more, and no pack=True."
        )
    nodes = nodes or 1
    jobs, workers = (1, -(-count // nodes)) if pack else (count, 1)
    return jobs, {"workers_per_node": workers, "cores_per_worker": 1, "nodes": nodes} | wishes


def launch(
    desk: Desk,
    name: str,
    jobs: int,
    *,
    queued: int,
    core_hours: float,
    call: Callable[[Any], Any] | None,
    script: str,
    wishes: dict[str, Any],
) -> Launched:
    """Submit so many jobs, or one of a shape that is looked for."""
    title = f"queue-{name}"[:60]
    queue, why = desk("check", name=name), ""
    if core_hours:
        spec, why = _shaped(desk, title, queue, core_hours, wishes)
    else:
        spec = handle.spec_for(desk.site, name=title, **wishes)
    certify(desk, name)
    function = _kept(desk, name, call) if call else ""
    asked = handle.agent().call(
        "launch",
        site=desk.site,
        spec=spec.to_json(),
        queue=queue,
        tokens=[secrets.token_hex(16) for _ in range(jobs)],
        work={"script": script, "function": function},
        queued=queued,
    )
    ids = list(handle.run(asked))
    default = config.load().default_site == desk.site
    return Launched(ids, launched_text(name, ids, spec, jobs, default=default) + why)


def _shaped(desk: Desk, title: str, queue: str, core_hours: float, wishes: dict[str, Any]) -> tuple[ClusterSpec, str]:
    """The job of so many core-hours that starts soonest, and why it is that one."""
    base, entry = handle.spec_for(desk.site, name=title, **wishes), config.load().site(desk.site)
    cores, nodes = handle.run(handle.agent().call("room", site=desk.site, spec=base.to_json()))
    if wishes.get("cores_per_node") or entry.cores_per_node:
        cores = base.resources.cores_per_node
    if wishes["nodes"]:
        nodes = min(base.resources.nodes, nodes or base.resources.nodes)
    for word, found in (("cores_per_node", cores), ("nodes", nodes)):
        if not found:
            what = f"the batch system of site {desk.site!r} does not say what one job can have"
            raise QueueError(what, remedy=f"Say {word}=, too.")
    each = base.cores_per_worker or 1
    workers = (wishes.get("workers_per_node") and base.workers_per_node) or max(1, cores // each)
    tried = shapes(core_hours, nodes=nodes, cores=cores, walltime=base.resources.walltime)
    specs = []
    for shape in tried:
        of_node = {"cores_per_node": cores, "workers_per_node": workers, "cores_per_worker": each}
        asked = wishes | of_node | {"nodes": shape.nodes, "walltime": shape.walltime}
        specs.append(handle.spec_for(desk.site, name=title, **asked))
    call = handle.agent().call(
        "soonest", site=desk.site, specs=[*map(ClusterSpec.to_json, specs)], queue=queue, token=secrets.token_hex(16)
    )
    said = handle.run(call)
    tried = [replace(one, starts=starts, refused=refused) for one, (starts, refused) in zip(tried, said, strict=True)]
    chosen = taken(tried)
    return specs[tried.index(chosen)], "\n" + shapes_text(tried, chosen, core_hours, time.time())


def _kept(desk: Desk, name: str, call: Callable[[Any], Any]) -> str:
    """Leave a function where the workers find it."""
    try:
        data = cloudpickle.dumps(call)
    except Exception as exc:  # whatever it refers to may refuse, in its own way
        what = f"{call!r} cannot be sent to the workers"
        raise CannotSerialize(what, evidence=f"{type(exc).__name__}: {exc}") from exc
    return str(desk("keep", name=name, data=base64.b64encode(data).decode()))
