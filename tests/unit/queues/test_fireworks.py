"""Workflows of FireWorks as tasks of a queue: links, specs, ScriptTask, PyTask, and what is refused before anything is added."""

from __future__ import annotations

import textwrap

import pytest

import hpcnb as hpc

HAMLET = """
fws:
- {fw_id: 3, name: last, spec: {_tasks: [{_fw_name: ScriptTask, script: "echo That is the question >> hamlet"}]}}
- fw_id: 1
  name: first
  spec:
    _priority: 7
    who: Hamlet
    _tasks:
    - {_fw_name: ScriptTask, script: [echo To be >> hamlet, echo or not to be >> hamlet]}
    - {_fw_name: PyTask, func: builtins.sorted, inputs: [who], outputs: [letters]}
    - {_fw_name: "{{fireworks.user_objects.firetasks.script_task.PyTask}}", func: len, inputs: [letters],
       outputs: [length], stored_data_varname: size}
- fw_id: 2
  spec: {_tasks: {_fw_name: ScriptTask, script: echo a is $(cat), stdin_key: length, store_stdout: true, stdout_file: out}}
- fw_id: 4
  spec: {_allow_fizzled_parents: true, _tasks: [{_fw_name: PyTask, func: play.act, kwargs: {scene: 2}, inputs: [letters]}]}
links: {1: [2, 3], '2': 4, 3: []}
metadata: {}
name: Hamlet
"""
PLAY = """
class FWAction:
    update_spec = {}

    def __init__(self, **said):
        self.said = said

    def to_dict(self):
        return {"propagate": False, **self.said}

def act(*letters, scene):
    task = {"_fw_name": "PyTask", "func": "play.scenes", "args": [scene]}
    return FWAction(additions=[{"spec": {"_tasks": [task], "_launch_dir": "deep/down"}}], stored_data={"act": 1})

def scenes(count):
    first = {"_fw_name": "ScriptTask", "script": "exit 3", "defuse_bad_rc": True}
    then = {"_fw_name": "ScriptTask", "script": "true"}
    fws = [{"fw_id": 1, "spec": {"_tasks": [first]}}, {"fw_id": 2, "spec": {"_tasks": [then]}}]
    return FWAction(additions=[{"fws": fws, "links": {"1": [2]}}], mod_spec=[{"_set": {"a": 1}}, {"_push": {"b": 2}}])
"""


@pytest.fixture
def q(isolated, monkeypatch, tmp_path):
    """An empty queue, and a folder to work in with a module of its user."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "play.py").write_text(PLAY)
    return hpc.Queue.create("hamlet")


def load(q, tmp_path, text, suffix="yaml"):
    path = tmp_path / f"workflow.{suffix}"
    path.write_text(textwrap.dedent(text))
    return q.load(path)


def test_a_workflow(q, tmp_path):
    """Fireworks run after those that their links say; specs go on to them; PyTask and ScriptTask do what FireWorks' do."""
    assert list(load(q, tmp_path, HAMLET)) == [1, 2, 3, 4]
    assert [(one.task.get("_name"), one.priority) for one in q.tasks()] == [
        ("first", 7),
        ("last", 0),
        (None, 0),
        (None, 0),
    ]
    assert q.task(2)["waits_for"] == q.task(3)["waits_for"] == [1]
    q.do()
    assert (tmp_path / "hamlet").read_text().split("\n")[:3] == ["To be", "or not to be", "That is the question"]
    assert q.task(3)["values"] == {"letters": ["H", "a", "e", "l", "m", "t"], "length": 6}
    first, _, third, _ = (one.result for one in q.tasks())
    assert first == {"all_returncodes": [0, 0], "returncode": 0, "size": 6}
    assert third["stdout"] == (tmp_path / "out").read_text() == "a is 6\n"
    assert q.task(4)["attempts"][-1]["error"].endswith("KeyError: 'letters'")  # of a grandparent


def test_fireworks_that_add_fireworks(q, tmp_path):
    """What a function says by FWAction is done: workflows are added, specs changed, children defused."""
    load(
        q,
        tmp_path,
        '{"spec": {"_tasks": [{"_fw_name": "PyTask", "func": "play.act", "kwargs": {"scene": 2}}]}}',
        "json",
    )
    q.do()
    assert [one.state for one in q.tasks()] == ["Succeeded", "Succeeded", "Succeeded", "Killed"]
    assert q.task(3)["values"] == {"a": 1, "b": [2]}
    assert q.task(1)["result"] == {"act": 1}
    assert (tmp_path / "deep/down").is_dir()


def test_a_script_that_adds_tasks(q, tmp_path):
    """What a ScriptTask leaves in `$HPCNB_ACTIONS` counts, too, before what the firework says."""
    script = """echo '{"child": "echo a"}\n{"child": "echo b", "requires": [1]}' >> $HPCNB_ACTIONS"""
    then = {"_fw_name": "PyTask", "func": "play.scenes", "args": [1]}
    q.add({"_tasks": [{"_fw_name": "ScriptTask", "script": script}, then]})
    q.do()
    assert [q.log(id) for id in (2, 3)] == ["a\n", "b\n"]
    assert [one.state for one in q.tasks()][3:] == ["Succeeded", "Killed"]


ONE = "{fw_id: 1, spec: {_tasks: [{_fw_name: ScriptTask, script: x}]}}"
TASK = "spec: {_tasks: [{_fw_name: ScriptTask, script: x}]"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: 1", "no workflow"),
        ("- 1", "no workflow"),
        ("{", "no YAML"),
        ("fws: [1]", "without a spec"),
        (f"{{fws: [{ONE}, {ONE}], links: {{}}}}", "two fireworks have the same fw_id"),
        (f"{{fws: [{ONE}], links: {{1: [2]}}}}", "the links name firework 2"),
        (f"{{fws: [{ONE}], links: {{1: [1]}}}}", "go round in a circle: 1"),
        (f"{{fws: [{ONE}], links: {{x: [1]}}}}", "invalid literal"),
        (f"{{fws: [{ONE}], links: {{}}, spam: 1}}", "the workflow has 'spam', which is not supported"),
        (f"{{{TASK}, _fworker: x}}}}", "the spec of firework -1 has '_fworker', which is not supported"),
        (f"{{name: N, state: COMPLETED, {TASK}}}}}", r"firework -1 \(N\) has been begun already"),
        (f"{{{TASK}, day: 2026-01-01}}}}", "has what JSON has not"),
        (
            "spec: {_tasks: [{_fw_name: FileTransferTask, script: x}]}",
            "has the task 'FileTransferTask'; what is carried out",
        ),
        ("spec: {_tasks: [{_fw_name: ScriptTask}]}", "a ScriptTask of firework -1 has no 'script'"),
        (
            "spec: {_tasks: [{_fw_name: PyTask, func: x, chunk_number: 1}]}",
            "a PyTask of firework -1 has 'chunk_number'",
        ),
        ("spec: {_tasks: [{script: x}]}", "a task without _fw_name"),
        ("spec: {}", "a task without _fw_name"),
        ("spec: {_tasks: !!python/object/apply:os.getcwd []}", "no YAML"),
    ],
)
def test_what_is_refused(q, tmp_path, text, why):
    """What is not supported is named, and nothing is added."""
    with pytest.raises(hpc.QueueError, match=why) as caught:
        load(q, tmp_path, text)
    assert "Nothing was added" in str(caught.value)
    assert len(q) == 0


def test_a_line_file(q, tmp_path):
    """A file of commands, as taskfarmer has it: comments, empty lines, no line at its end, bytes that are no text."""
    path = tmp_path / "tasks.txt"
    path.write_bytes(b"#!/bin/sh\necho one\r\n\n  # no\n\techo 'two;  $HOME'\necho \xff")
    assert list(q.load(path, unique=True)) == [1, 2, 3]
    assert list(q.load(path, unique=True)) == [1, 2, 3]
    assert [one.task for one in q.tasks()] == ["echo one", "echo 'two;  $HOME'", "echo \udcff"]
    for odd in (tmp_path, tmp_path / "missing.yaml"):
        with pytest.raises(hpc.QueueError, match=r"cannot read (.|\n)*Nothing was added"):
            q.load(odd)
    one = tmp_path / "one.json"
    one.write_text('{"spec": {"_tasks": [{"_fw_name": "ScriptTask", "script": "x"}]}}')
    with pytest.raises(hpc.QueueError, match="unique= and a workflow"):
        q.load(one, unique=True)
