"""What goes along when jobs are to drain a queue: certificates and a function."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from typing import Any

import cloudpickle

from hpcnb import handle
from hpcnb.errors import CannotSerialize
from hpcnb.pilot.queue.wire import OWNER, WORKER
from hpcnb.queue.desk import Desk

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


def launch(
    desk: Desk, name: str, jobs: int, *, call: Callable[[Any], Any] | None, script: str, wishes: dict[str, Any]
) -> list[str]:
    """Submit so many jobs; return their ids."""
    spec = handle.spec_for(desk.site, name=f"queue-{name}"[:60], **wishes)
    certify(desk, name)
    function = _kept(desk, name, call) if call else ""
    asked = handle.agent().call(
        "launch",
        site=desk.site,
        spec=spec.to_json(),
        queue=desk("check", name=name),
        tokens=[secrets.token_hex(16) for _ in range(jobs)],
        work={"script": script, "function": function},
    )
    return list(handle.run(asked))


def _kept(desk: Desk, name: str, call: Callable[[Any], Any]) -> str:
    """Leave a function where the workers find it."""
    try:
        data = cloudpickle.dumps(call)
    except Exception as exc:  # whatever it refers to may refuse, in its own way
        what = f"{call!r} cannot be sent to the workers"
        raise CannotSerialize(what, evidence=f"{type(exc).__name__}: {exc}") from exc
    return str(desk("keep", name=name, data=base64.b64encode(data).decode()))
