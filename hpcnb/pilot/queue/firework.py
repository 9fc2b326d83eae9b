"""FireWorks' workflows as tasks of a queue: what a document means, and, as `python -m`, one of its fireworks carried out.

A firework is a task that is its spec, so that what parents pass to it goes where FireWorks' ``update_spec`` puts it.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcnb.pilot.queue.action import FILE, VALUES, Action, added, read

NAME, TASKS = "_name", "_tasks"
"""Where a firework's name is in its task; and what its spec has, and no other dict should."""
_WORKFLOW = {
    "fws",
    "links",
    "name",
    "metadata",
    "created_on",
    "updated_on",
    "parent_links",
    "nodes",
    "state",
    "fw_states",
}
_FIREWORK = {"spec", "fw_id", "name", "launches", "archived_launches", "state", "created_on", "updated_on"}
_SPEC = {TASKS, "_priority", "_launch_dir", "_allow_fizzled_parents"}
_NOT_BEGUN = ("WAITING", "READY")
_KNOWN = {
    "ScriptTask": "script use_shell shell_exe stdin_file stdin_key stdout_file stderr_file store_stdout store_stderr "
    "defuse_bad_rc fizzle_bad_rc use_global_spec",
    "PyTask": "func args kwargs auto_kwargs inputs outputs stored_data_varname",
}
_ACTION = {"stored_data", "exit", "update_spec", "mod_spec", "additions", "detours", "defuse_children"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One firework of a document.

    Parameters
    ----------
    spec : dict
        What the queue has as the task.
    above : list of int
        Places in the list of steps of those that it waits for; all are before it.
    requires : bool
        Whether these have to succeed.
    priority : int or None
    """

    spec: dict[str, Any]
    above: list[int]
    requires: bool
    priority: int | None


def steps(document: Any) -> list[Step]:
    """The fireworks of a workflow, or of a document that is a single one; each behind those that it waits for.

    Raises
    ------
    ValueError
        It is none, or has what is not supported.
    """
    if not isinstance(document, Mapping) or not {"fws", "spec"} & set(document):
        raise ValueError("it is no workflow (`fws` and `links`) and no firework (`spec`)")
    if "fws" not in document:
        document = {"fws": [document]}
    _only(document, _WORKFLOW, "the workflow")
    fireworks = {_id(firework): firework for firework in document["fws"]}
    if len(fireworks) < len(document["fws"]):
        raise ValueError("two fireworks have the same fw_id")
    parents = _parents(document.get("links") or {}, fireworks)
    order = _sorted(parents)
    place = {id: number for number, id in enumerate(order)}
    return [_step(id, fireworks[id], [place[parent] for parent in parents[id]]) for id in order]


def _id(firework: Any) -> int:
    spec = firework.get("spec") if isinstance(firework, Mapping) else None
    if not isinstance(spec, Mapping):
        raise ValueError("a firework without a spec")  # noqa: TRY004 - of a document
    return int(firework.get("fw_id", -1))


def _parents(links: Mapping[Any, Any], fireworks: Mapping[int, Any]) -> dict[int, list[int]]:
    parents: dict[int, list[int]] = {id: [] for id in fireworks}
    for key, below in links.items():
        for child in below if isinstance(below, list) else [below]:
            if missing := [id for id in (int(key), int(child)) if id not in fireworks]:
                raise ValueError(f"the links name firework {missing[0]}, which is not there")
            parents[int(child)].append(int(key))
    return parents


def _sorted(parents: Mapping[int, list[int]]) -> list[int]:
    """Parents before children, else as in the document."""
    order: list[int] = []
    left = dict(parents)
    done: set[int] = set()
    while left:
        free = [id for id, above in left.items() if done.issuperset(above)]
        if not free:
            raise ValueError(f"the links of these fireworks go round in a circle: {', '.join(map(str, left))}")
        order += free
        done.update(free)
        for id in free:
            del left[id]
    return order


def _step(id: int, firework: Mapping[str, Any], above: list[int]) -> Step:
    where = f"firework {id}" + (f" ({firework['name']})" if firework.get("name") else "")
    _only(firework, _FIREWORK, where)
    if (
        firework.get("launches")
        or firework.get("archived_launches")
        or firework.get("state", "READY") not in _NOT_BEGUN
    ):
        raise ValueError(f"{where} has been begun already")
    spec = dict(firework["spec"])
    _only({key: 0 for key in spec if str(key).startswith("_")}, _SPEC, f"the spec of {where}")
    tasks = spec.get(TASKS)
    for task in tasks if isinstance(tasks, list) else [tasks]:
        _check(task, where)
    try:
        json.dumps(spec, allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"the spec of {where} has what JSON has not: {exc}") from None
    if firework.get("name"):
        spec[NAME] = firework["name"]
    priority = spec.get("_priority")
    requires = not spec.get("_allow_fizzled_parents")
    return Step(spec=spec, above=above, requires=requires, priority=None if priority is None else int(priority))


def _kind(task: Any) -> str:
    name = str(task.get("_fw_name", "")) if isinstance(task, Mapping) else ""
    return re.sub(r"^\{\{.*?(\w+)\}\}$", r"\1", name)


def _check(task: Any, where: str) -> None:
    kind = _kind(task)
    if kind not in _KNOWN:
        named = f"the task {kind!r}" if kind else "a task without _fw_name"
        raise ValueError(f"{where} has {named}; what is carried out is {' and '.join(_KNOWN)}")
    wanted = "script" if kind == "ScriptTask" else "func"
    if wanted not in task and not task.get("use_global_spec"):
        raise ValueError(f"a {kind} of {where} has no {wanted!r}")
    if not task.get("auto_kwargs"):
        _only(task, {"_fw_name", *_KNOWN[kind].split()}, f"a {kind} of {where}")


def _only(found: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    if odd := sorted(map(str, set(found) - set(known))):
        raise ValueError(f"{where} has {odd[0]!r}, which is not supported")


# -- carrying one out ----------------------------------------------------------------------------------------------------


def run(spec: dict[str, Any]) -> Action:
    """Carry out the tasks of a firework, one after the other; what they say is the action of the queue's task."""
    if folder := spec.get("_launch_dir"):
        Path(os.path.expandvars(folder)).mkdir(parents=True, exist_ok=True)
        os.chdir(os.path.expandvars(folder))
    action = Action(result={})
    tasks = spec[TASKS] if isinstance(spec[TASKS], list) else [spec[TASKS]]
    for task in tasks:
        said = _script(task, spec) if _kind(task) == "ScriptTask" else _python(task, spec)
        _take(action, said, spec)
        if said.get("exit"):
            break
    return action


def _take(action: Action, said: dict[str, Any], spec: dict[str, Any]) -> None:
    """Do what a firetask has said (``FWAction``)."""
    for word in set(said) - _ACTION:
        if said[word]:
            raise ValueError(f"FWAction({word}=…) is not supported")
    action.result |= said.get("stored_data") or {}
    changed = dict(said.get("update_spec") or {})
    for change in said.get("mod_spec") or []:
        _only(change, {"_set", "_push"}, "mod_spec")
        changed |= change.get("_set", {})
        action.push(**change.get("_push", {}))
    action.values(**changed)
    spec |= changed  # for the tasks behind it
    for kind in ("detours", "additions"):
        for document in said.get(kind) or []:
            _grow(action, "detour" if kind == "detours" else "child", document)
    if said.get("defuse_children"):
        action.defuse()


def _grow(action: Action, kind: str, document: Any) -> None:
    numbers: list[int] = []
    for step in steps(document.to_dict() if hasattr(document, "to_dict") else document):
        above = {"requires" if step.requires else "after": [numbers[place] for place in step.above]}
        more = {} if step.priority is None else {"priority": step.priority}
        numbers.append(getattr(action, kind)(step.spec, **above, **more))


def _python(task: Mapping[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    module, _, name = str(task["func"]).rpartition(".")
    function = getattr(importlib.import_module(module or "builtins"), name)
    args = [*task.get("args", []), *(spec[word] for word in task.get("inputs", []))]
    kwargs = task.get("kwargs", {})
    if task.get("auto_kwargs"):
        own = set(_KNOWN["PyTask"].split())
        kwargs = {word: value for word, value in task.items() if not word.startswith("_") and word not in own}
    output = function(*args, **kwargs)
    if hasattr(output, "update_spec") and hasattr(output, "to_dict"):  # FireWorks' own FWAction
        return dict(output.to_dict())
    outputs = task.get("outputs", [])
    values = [output] if len(outputs) == 1 else list(output) if outputs else []
    said: dict[str, Any] = {"update_spec": dict(zip(outputs, values, strict=True))}
    if word := task.get("stored_data_varname"):
        said["stored_data"] = {word: output}
    return said


def _script(task: Mapping[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    asked = spec if task.get("use_global_spec") else task
    scripts = asked["script"] if isinstance(asked["script"], list) else [asked["script"]]
    given = str(spec[asked["stdin_key"]]).encode() if asked.get("stdin_key") else None
    if asked.get("stdin_file"):
        given = Path(asked["stdin_file"]).read_bytes()
    stored: dict[str, Any] = {"all_returncodes": []}
    for script in scripts:
        stored |= _ran(script, asked, given) | {"all_returncodes": stored["all_returncodes"]}
        stored["all_returncodes"].append(stored["returncode"])
        if stored["returncode"]:
            break
    defuse = bool(asked.get("defuse_bad_rc"))
    if stored["returncode"] and asked.get("fizzle_bad_rc", not defuse):
        sys.exit(f"ScriptTask: exit status {stored['returncode']} of {script}")
    return {"stored_data": stored, "defuse_children": defuse and bool(stored["returncode"])}


def _ran(script: Any, asked: Mapping[str, Any], given: bytes | None) -> dict[str, Any]:
    shell = bool(asked.get("use_shell", True))
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
    for stream in ("stdout", "stderr"):
        if asked.get(f"{stream}_file") or asked.get(f"store_{stream}"):
            streams[stream] = subprocess.PIPE
    command: Any = script if shell else shlex.split(str(script))
    done = subprocess.run(  # what the user's own workflow says
        command,
        executable=asked.get("shell_exe"),
        shell=shell,
        check=False,
        **streams,
    )
    stored: dict[str, Any] = {"returncode": done.returncode}
    for stream in ("stdout", "stderr"):
        written = getattr(done, stream) or b""
        if path := asked.get(f"{stream}_file"):
            with open(path, "ab") as file:
                file.write(written)
        if asked.get(f"store_{stream}"):
            stored[stream] = written.decode(errors="replace")
    return stored


def main() -> None:
    """Carry out the firework that a queue's worker has left for us."""
    action = run(json.loads(Path(os.environ[VALUES]).read_text(encoding="utf-8")))
    path = Path(os.environ[FILE])
    before = added(read(path.read_text(encoding="utf-8"))) if path.exists() else 0  # by a script of ours
    lines = [
        {
            word: [number + before for number in value] if word in ("requires", "after") else value
            for word, value in line.items()
        }
        for line in [*action.lines, {"result": action.result}]
    ]
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(line, allow_nan=False) + "\n" for line in lines)


if __name__ == "__main__":
    main()
