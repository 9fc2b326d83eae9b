"""A drop box's job as its file says it: read, checked, and written with what has become of it. Pure."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

_SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_TEXTS: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_SCRIPT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
LONGEST = 10_000_000
"""Bytes of a job's file."""
LONGEST_NUMBER = 1000
"""Characters of a whole number."""

DEEPEST = 100


class _Loader(_SAFE):  # type: ignore[misc]
    """Refuses whole numbers that Python does not write down, so that they could neither be quoted nor given back."""

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > LONGEST_NUMBER:
            raise ValueError(f"a whole number of {len(node.value):,} characters")
        number: int = super().construct_yaml_int(node)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)

brief = reprlib.repr
"""A value as a message quotes it. A few lines of YAML may hold more than the memory, if all of it were written down."""


class Refused(Exception):
    """A job cannot be carried out; the message is for who has left it.

    Parameters
    ----------
    why : str
    content : dict, optional
        What could be read of the job.
    """

    def __init__(self, why: str, content: dict[str, Any] | None = None) -> None:
        super().__init__(why)
        self.content = content or {}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done.

    Parameters
    ----------
    content : dict
        All that the file says.
    script : str
        The template's name.
    args : dict
        Values for it, as text.
    inputs, outputs : dict
        Names, and absolute paths on the machine of the drop box.
    """

    content: dict[str, Any]
    script: str
    args: dict[str, str]
    inputs: dict[str, str]
    outputs: dict[str, str]

    @classmethod
    def parse(cls, data: bytes) -> Job:
        """Read a job's file; raises `Refused`."""
        content = mapping(data)
        script = content.get("script")
        if not isinstance(script, str) or not _SCRIPT.fullmatch(script):
            raise Refused(f"script: {brief(script)} is no name of a template", content)
        texts = _load(data, _TEXTS)
        outputs = _paths(content, "output_map")
        if len(set(outputs.values())) < len(outputs):
            raise Refused("output_map: two outputs have the same path", content)
        return cls(
            content=content,
            script=script,
            args=_args(content, texts),
            inputs=_paths(content, "input_map"),
            outputs=outputs,
        )


def mapping(data: bytes) -> dict[str, Any]:
    """What a file of a drop box holds; raises `Refused` when that is no mapping."""
    content = _load(data, _Loader)
    if not isinstance(content, dict):
        raise Refused(f"the file holds {brief(content)} and no mapping with script, args, input_map and output_map")
    return content


def _load(data: bytes, loader: Any) -> Any:
    if len(data) > LONGEST:
        raise Refused(f"the file is larger than {LONGEST:,} bytes")
    try:
        _check_depth(text := data.decode(), loader)
        return yaml.load(text, loader)  # noqa: S506 - one of the three safe ones above
    except UnicodeDecodeError as exc:
        raise Refused(f"the file is not UTF-8: {exc}") from None
    except (yaml.YAMLError, ValueError) as exc:  # an impossible date is a ValueError
        raise Refused(f"the file is not YAML: {exc}") from None
    except Refused:
        raise
    except Exception as exc:  # YAML's own types raise whatever comes when a value is none of theirs
        raise Refused(f"the file is not YAML: {type(exc).__name__}: {exc}") from None


def _check_depth(text: str, loader: Any) -> None:
    """Refuse what is nested too deeply: libyaml's loader would die of it, and we with it."""
    depth = 0
    for event in yaml.parse(text, loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise Refused(f"the file is not YAML that we read: it is nested more than {DEEPEST} deep")


def text(content: Mapping[str, Any]) -> bytes:
    """A file of a drop box; raises `Refused` when YAML has no way to write it."""
    try:
        return bytes(yaml.dump(dict(content), Dumper=_DUMPER, encoding="utf-8", sort_keys=False, allow_unicode=False))
    except (yaml.YAMLError, RecursionError) as exc:
        raise Refused(f"the job cannot be written as YAML: {exc}") from None


def _section(content: dict[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Refused(f"{key}: {brief(found)} is no mapping", content)
    if odd := [name for name in found if not isinstance(name, str)]:
        raise Refused(f"{key}: the name {brief(odd[0])} is no text: put it in quotes", content)
    return found


def _args(content: dict[str, Any], texts: Any) -> dict[str, str]:
    """The values as they stand in the file: YAML itself would make 750 of 12:30."""
    found = _section(content, "args")
    if odd := [name for name, value in found.items() if isinstance(value, dict | list | set | bytes)]:
        raise Refused(f"args: the value of {odd[0]} is no single value: {brief(found[odd[0]])}", content)
    written = texts.get("args") if isinstance(texts.get("args"), dict) else {}
    return {name: str(written.get(name, value)) for name, value in found.items() if value is not None}


def _paths(content: dict[str, Any], key: str) -> dict[str, str]:
    found = _section(content, key)
    for name, path in found.items():
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise Refused(f"{key}: {name} has to be an absolute path, not {brief(path)}", content)
        if path.endswith(("/", "/.")) or PurePosixPath(path).name in ("", ".."):
            raise Refused(f"{key}: {name} is {brief(path)}, which cannot be a file", content)
    return found


def kept_apart(paths: Mapping[str, str]) -> dict[str, str]:
    """Each file's base name; where several would have the same, all but the first have a number before their suffix.

    Examples
    --------
    >>> kept_apart({"a": "/x/talk.mp3", "b": "/y/talk.mp3"})
    {'a': 'talk.mp3', 'b': 'talk-2.mp3'}
    """
    found: dict[str, str] = {}
    names = {PurePosixPath(path).name for path in paths.values()}
    for key, path in paths.items():
        base = PurePosixPath(path)
        name, number = base.name, 1
        while name in found.values() or (number > 1 and name in names):
            number += 1
            name = f"{base.stem}-{number}{base.suffix}"
        found[key] = name
    return found


def placed(job: Job, workspace: str) -> dict[str, Any]:
    """Where all of a job is at the site: the section `hpc` of its file."""
    return {
        "workspace": workspace,
        "finished_file": f"{workspace}/finished.out",
        "input_map": {key: f"{workspace}/input/{name}" for key, name in kept_apart(job.inputs).items()},
        "output_map": {key: f"{workspace}/output/{name}" for key, name in kept_apart(job.outputs).items()},
    }


def values(job: Job, workspace: str, settings: Mapping[str, str]) -> dict[str, str]:
    """What the names in a template stand for."""
    files = kept_apart(job.inputs) | kept_apart(job.outputs)
    return {**settings, **job.args, "workspace": workspace, **files}


def ending(error: str, result: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The section `job` of a file: how the job ended; without a result it was never begun."""
    found = dict(result or {"rc": None, "stdout": "", "stderr": "", "start": None, "end": None})
    if not error and found["rc"]:
        error = f"the job ended with return code {found['rc']}"
    return {"status": "error" if error else "ok", "message": error or "successful", **found}
