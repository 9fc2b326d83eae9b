"""What a run leaves at its site: logs to read, and the evidence of how it ended."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

from hpcnb.agent.postmortem import Evidence, Peak
from hpcnb.agent.sites import Site
from hpcnb.errors import SiteError
from hpcnb.model import Ending, JobStatus, Reason, Resources
from hpcnb.pilot.output.search import SAYS
from hpcnb.site.batch import BatchUnknown
from hpcnb.site.environment import Environment
from hpcnb.site.shell import Shell

TAIL = 4000
"""Bytes of a job's log that come with the news of its end."""
SEARCHING = 60.0
"""Seconds that a search in the logs may take."""
_CHARACTER = 4
"""Bytes of the longest one."""
_ENTER = "import sys; sys.path.insert(0, sys.argv[1]); from hpcnb.pilot.output.search import main; sys.exit(main())"

_PEAKS = 'cat "$1"/memory-*.json'


async def evidence_of(site: Site, path: str, job: JobStatus, resources: Resources) -> Evidence:
    """All that can be had of a job that is over; a site that does not answer is no obstacle."""
    told, shell = job.ending or Ending(reason=Reason.FAILED, job_id=job.job_id), site.shell
    log, said, canceller = "", None, ""
    peaks: tuple[Peak, ...] = ()
    with contextlib.suppress(OSError, SiteError):
        log = await read_log(shell, path, "job.log", TAIL)
    # A file cut short by a full disk is no ending.
    with contextlib.suppress(OSError, SiteError, ValueError, TypeError, AttributeError):
        said = Ending.from_json(json.loads(await shell.read(f"{path}/ended.json")))
    with contextlib.suppress(OSError, SiteError):
        peaks = _peaks((await shell.run(["sh", "-c", _PEAKS, "sh", path])).out)
    if told.reason is Reason.CANCELLED:
        with contextlib.suppress(BatchUnknown):
            canceller = await site.batch.canceller(job.job_id)
    return Evidence(told=told, said=said, log=log, peaks=peaks, canceller=canceller, resources=resources)


def _peaks(text: str) -> tuple[Peak, ...]:
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError):  # half a line
            found.append(Peak(**json.loads(line)))
    return tuple(found)


async def read_log(shell: Shell, path: str, name: str, most: int) -> str:
    """The last `most` bytes of a file of the run."""
    data = await shell.read(f"{path}/{name}", offset=-most)
    return data.decode("utf-8", "replace")


async def log_names(shell: Shell, path: str) -> list[str]:
    """The logs that exist: ``job.log`` once the job has run, those of the processes, and of jobs that have added nodes."""
    found = 'cd "$1" && ls job.log logs/*.log "../${1##*/}"-[0-9]*/job.log "../${1##*/}"-[0-9]*/logs/*.log'
    listed = await shell.run(["sh", "-c", found, "sh", path])
    return listed.out.splitlines()


async def log_piece(shell: Shell, path: str, name: str, offset: int, most: int) -> dict[str, Any]:
    """The text of one log from a byte on, or (negative) so many bytes from its end, and the byte where it goes on.

    A character of which the end is not there yet comes with the next piece. Nothing where there is no such log.
    """
    folder = re.escape(path.rpartition("/")[2])
    found = re.fullmatch(rf"({folder}-[0-9]+/)?(job\.log|logs/[^/\0]{{1,200}}\.log)", name)
    if not found:
        return {}
    file = f"{path}/../{name}" if found[1] else f"{path}/{name}"
    try:
        begin = offset if offset >= 0 else await _before_end(shell, file, -offset)
        data = await shell.read(file, offset=begin, limit=max(most, _CHARACTER))
    except FileNotFoundError:
        return {}
    if offset < 0 < begin:  # the first character may have begun before
        cut = next((i for i, byte in enumerate(data[:_CHARACTER]) if byte & 0xC0 != 0x80), 0)
        begin, data = begin + cut, data[cut:]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    return {"text": text, "offset": begin, "next": begin + len(data) - len(decoder.getstate()[0])}


async def _before_end(shell: Shell, file: str, most: int) -> int:
    counted = await shell.run(["sh", "-c", 'wc -c <"$1"', "sh", file])
    if counted.returncode:
        raise FileNotFoundError(file)
    return max(0, int(counted.out.split()[-1]) - most)


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
    try:
        done = await shell.run(command, stdin=asked, timeout=SEARCHING)
    except TimeoutError as exc:
        raise SiteError(str(exc), where=path, remedy="Ask for less: a task, a node, a shorter pattern.") from exc
    _, mark, said = done.out.rpartition(f"\n{SAYS}")
    if not mark:
        evidence = (done.err or done.out).strip()[-2000:]
        raise SiteError("the logs could not be searched", where=f"{shell.name}, {path}", evidence=evidence)
    answer: dict[str, Any] = json.loads(said.splitlines()[0])
    return answer
