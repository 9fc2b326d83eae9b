"""What a run leaves at its site: logs to read, and how it ended."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hpcnb.errors import SiteError
from hpcnb.model import Ending, JobStatus, Reason
from hpcnb.pilot.output.search import SAYS
from hpcnb.site.environment import Environment
from hpcnb.site.shell import Shell

TAIL = 4000
"""Bytes of a job's log that come with the news of its end."""
SEARCHING = 60.0
"""Seconds that a search in the logs may take."""
_ENTER = "import sys; sys.path.insert(0, sys.argv[1]); from hpcnb.pilot.output.search import main; sys.exit(main())"


async def ending_of(shell: Shell, path: str, job: JobStatus) -> Ending:
    """What the batch system says of the end, completed by what the pilot wrote."""
    ending = job.ending or Ending(reason=Reason.FAILED, job_id=job.job_id)
    with contextlib.suppress(OSError, SiteError):
        ending = replace(ending, tail=(await read_log(shell, path, "job.log", TAIL)).strip())
    # A file cut short by a full disk is no ending.
    with contextlib.suppress(OSError, SiteError, ValueError, TypeError, AttributeError):
        said = Ending.from_json(json.loads(await shell.read(f"{path}/ended.json")))
        if ending.reason in (Reason.FAILED, Reason.COMPLETED):
            ending = replace(ending, reason=said.reason, message=said.message, tail=said.tail or ending.tail)
    return ending


async def read_log(shell: Shell, path: str, name: str, most: int) -> str:
    """The last `most` bytes of a file of the run."""
    data = await shell.read(f"{path}/{name}", offset=-most)
    return data.decode("utf-8", "replace")


async def log_names(shell: Shell, path: str) -> list[str]:
    """The logs that exist: ``job.log`` once the job has run, and those of the processes."""
    listed = await shell.run(["sh", "-c", 'cd "$1" && ls job.log logs/*', "sh", path])
    return [name for name in listed.out.split() if name.endswith(".log")]


async def search(
    shell: Shell, environment: Environment, *, zip_path: str, path: str, question: Mapping[str, Any]
) -> dict[str, Any]:
    """Look for something in the logs of a run, there (see `hpcnb.pilot.output.search`).

    Raises
    ------
    SiteError
        There was no answer.
    """
    command = environment.argv(environment.enter("-S", "-E", "-c", _ENTER, zip_path))
    asked = json.dumps({"folder": path, **question}).encode()
    done = await shell.run(command, stdin=asked, timeout=SEARCHING)
    _, mark, said = done.out.rpartition(f"\n{SAYS}")
    if not mark:
        evidence = (done.err or done.out).strip()[-2000:]
        raise SiteError("the logs could not be searched", where=f"{shell.name}, {path}", evidence=evidence)
    answer: dict[str, Any] = json.loads(said.splitlines()[0])
    return answer
