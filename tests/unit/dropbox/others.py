"""Other programs that speak the drop box's format, with the manners of its first implementation: they write files in their place."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import yaml


def leave(box: Path, name: str, job: dict) -> Path:
    """A program that knows nothing of HPC."""
    path = box / f"{name}.job"
    path.write_text(yaml.safe_dump(job))
    return path


def outcome(box: Path, name: str) -> dict:
    """The section `job` of a finished job."""
    return yaml.safe_load((box / f"{name}.job.finished").read_text())["job"]


def run_workspaces(folder: Path) -> int:
    """A runner at the site: carries out every workspace that is ready; returns how many."""
    count = 0
    for path in sorted(folder.iterdir()):
        if not os.access(path / "job.sh", os.X_OK) or (path / "finished.out").exists():
            continue
        with open(path / "stdout.txt", "wb") as out, open(path / "stderr.txt", "wb") as err:
            began = datetime.now(UTC)
            code = subprocess.run([path / "job.sh"], cwd=path, stdout=out, stderr=err, check=False).returncode
        (path / "finished.out").write_text(f"{code}\n{began}\n{datetime.now(UTC)}\n")
        count += 1
    return count


def submit(path: Path, workspaces: Path, template: str) -> Path:
    """A submitter: fills a workspace, and says so in the drop box."""
    job = yaml.safe_load(path.read_text())
    workspace = workspaces / f"{socket.gethostname()}-{path.stat().st_ino}-{time.time()}"
    hpc = {"workspace": str(workspace), "finished_file": f"{workspace}/finished.out"}
    values = {"workspace": str(workspace)}
    for section in ("input", "output"):
        (workspace / section).mkdir(parents=True)
        hpc[f"{section}_map"] = {}
        for key, file in job[f"{section}_map"].items():
            values[key] = Path(file).name
            hpc[f"{section}_map"][key] = f"{workspace}/{section}/{values[key]}"
            if section == "input":
                shutil.copyfile(file, hpc["input_map"][key])
    (workspace / "job.sh").write_text(re.sub("<<(.*?)>>", lambda found: values[found[1]], template))
    (workspace / "job.sh").chmod(0o750)
    path.with_name(f"{path.name}.submitted").write_text(yaml.safe_dump({**job, "hpc": hpc}))
    path.unlink()
    return workspace


def collect(path: Path) -> None:
    """The other half of a submitter: brings back what a finished job has made."""
    job = yaml.safe_load(path.read_text())
    workspace = Path(job["hpc"]["workspace"])
    code, began, ended = Path(job["hpc"]["finished_file"]).read_text().splitlines()
    result = {"rc": int(code), "start": began, "end": ended, "status": "ok", "message": "Successful"}
    result |= {name: (workspace / f"{name}.txt").read_text() for name in ("stdout", "stderr")}
    for key, source in job["hpc"]["output_map"].items():
        shutil.copyfile(source, job["output_map"][key])
    Path(str(path).replace(".submitted", ".finished")).write_text(yaml.safe_dump({**job, "job": result}))
    path.unlink()
    shutil.rmtree(workspace)
