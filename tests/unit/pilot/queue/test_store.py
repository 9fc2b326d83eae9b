"""The store against a model of it in plain Python, with kills between and within transactions."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hpcnb.errors import QueueError
from hpcnb.pilot.queue.records import Outcome
from hpcnb.pilot.queue.states import ENDED, TaskState
from hpcnb.pilot.queue.store import MOST_LOST, Store

WAITING, PENDING, RUNNING, SUCCEEDED, FAILED, KILLED = TaskState
NAMES = ("one", "two")
POLICIES = [(1, 0, ""), (2, 5, "bad")]


class Task:
    """What the model knows of a task."""

    def __init__(self, priority, edges, policy=(0, 0, "")):
        self.priority, self.edges = priority, edges  # parent → [it has to succeed, it has met that]
        self.policy, self.fails = policy, 0
        self.attempt, self.worker, self.ends, self.lost, self.state = 0, None, [], 0, None
        self.wait()

    def wait(self):
        self.state = PENDING if all(met for _, met in self.edges.values()) else WAITING


class Model(RuleBasedStateMachine):
    """Each rule does the same to the store and to the model; then both must say the same."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.fence = 1
        self.store = Store(self.folder / "1.sqlite", 1)
        self.tasks, self.due, self.at, self.now = {}, {}, {}, 0
        with self.store.transaction():
            self.workers = {name: self.store.worker(name) for name in NAMES}

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.folder)

    @initialize(requires=st.booleans())
    def chain(self, requires):
        """Two tasks, one that waits for both, and one that waits for that."""
        edges = [[], [], [1, 2], [3]]
        with self.store.transaction():
            self.store.add_after([("1", *((ids, []) if requires else ([], ids))) for ids in edges])
            self.store.add(["2"], policy=self.store.policy(*POLICIES[1]))
        self.tasks = {id: Task(0, {p: [requires, False] for p in ids}) for id, ids in enumerate(edges, 1)}
        self.tasks[5] = Task(0, {}, POLICIES[1])

    def some(self, data):
        return data.draw(st.lists(st.sampled_from(sorted(self.tasks)), unique=True, max_size=4))

    @rule(count=st.integers(0, 4), priority=st.integers(-1, 1), policy=st.sampled_from([(0, 0, ""), *POLICIES]))
    def add(self, count, priority, policy):
        with self.store.transaction():
            kept = self.store.policy(*policy) if policy[0] else None
            first, added = self.store.add((f'"{i}"' for i in range(count)), priority=priority, policy=kept)
        assert (first, added) == (len(self.tasks) + 1, count)
        for id in range(first, first + count):
            self.tasks[id] = Task(priority, {}, policy)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), priority=st.integers(-1, 1))
    def add_after(self, data, priority):
        requires, after = self.some(data), self.some(data)
        with self.store.transaction():
            first, _ = self.store.add_after([("1", requires, after)], priority=priority)
        met = {parent: self.tasks[parent].state in (SUCCEEDED, FAILED) for parent in after}
        met |= {parent: self.tasks[parent].state is SUCCEEDED for parent in requires}
        self.tasks[first] = Task(priority, {parent: [parent in requires, met[parent]] for parent in met})

    @rule(name=st.sampled_from(NAMES), most=st.integers(1, 3), others=st.booleans())
    def take(self, name, most, others):
        with self.store.transaction():
            taken = self.store.take(self.workers[name], most, alone=not others)
        pending = [id for _, id in sorted((-t.priority, id) for id, t in self.tasks.items() if t.state is PENDING)]
        alone = next((index for index, id in enumerate(pending) if self.tasks[id].lost), most)
        assert [row[0] for row in taken] == pending[: min(most, max(not others, alone))]
        for id, attempt, _ in taken:
            task = self.tasks[id]
            task.state, task.worker, task.attempt = RUNNING, name, task.attempt + 1
            assert attempt == task.attempt

    def running(self):
        return sorted(id for id, task in self.tasks.items() if task.worker)

    @precondition(running)
    @rule(data=st.data(), state=st.sampled_from(ENDED), error=st.sampled_from(["too bad", "other"]))
    def finish(self, data, state, error):
        id = data.draw(st.sampled_from(self.running()))
        task = self.tasks[id]
        told = Outcome(task=id, attempt=task.attempt, state=state, result="1", error=error)
        with self.store.transaction():
            assert self.store.finish(self.workers[task.worker], [told, told]) == [id]
        retries, delay, pattern = task.policy
        task.fails += state is FAILED
        if state is not FAILED or task.fails > retries or pattern not in error:
            self.end(id, state)
            return
        task.ends.append(task.attempt)
        task.worker, task.state = None, WAITING if delay else PENDING
        if delay:
            self.due.setdefault(id, delay * 2 ** (task.fails - 1))

    @precondition(running)
    @rule(data=st.data(), name=st.sampled_from(NAMES), behind=st.integers(0, 1))
    def give_back(self, data, name, behind):
        """What was not begun counts as no attempt; what is somebody else's, or of an attempt before, stays."""
        ids = data.draw(st.lists(st.sampled_from(self.running()), unique=True))
        with self.store.transaction():
            self.store.give_back(self.workers[name], [(id, self.tasks[id].attempt - behind) for id in ids])
        for id in ids:
            if self.tasks[id].worker == name and not behind:
                self.tasks[id].worker, self.tasks[id].state = None, PENDING
                self.tasks[id].attempt -= 1

    @rule(later=st.sampled_from([0, 4, 100]))
    def wake(self, later):
        self.now += later
        with self.store.transaction():
            self.store.wake(self.now)
        self.at = {id: self.at.get(id, self.now + delay) for id, delay in self.due.items()}
        for id in [id for id, at in self.at.items() if at <= self.now]:
            del self.due[id], self.at[id]
            if self.tasks[id].state is WAITING:
                self.tasks[id].wait()

    @precondition(lambda self: any(task.attempt for task in self.tasks.values()))
    @rule(data=st.data(), state=st.sampled_from(ENDED), behind=st.integers(0, 1))
    def finish_what_is_not_mine(self, data, state, behind):
        """By an attempt that was taken back, by somebody else, or twice."""
        id = data.draw(st.sampled_from(sorted(id for id, task in self.tasks.items() if task.attempt)))
        task = self.tasks[id]
        name = task.worker if behind and task.worker else next(name for name in NAMES if name != task.worker)
        told = Outcome(task=id, attempt=task.attempt - behind, state=state)
        with self.store.transaction():
            assert self.store.finish(self.workers[name], [told]) == []

    def end(self, id, state):
        task = self.tasks[id]
        if task.worker:
            task.ends.append(task.attempt)
        task.state, task.worker = state, None
        for child in self.tasks.values():
            edge = child.edges.get(id)
            if edge and state in ((SUCCEEDED,) if edge[0] else (SUCCEEDED, FAILED)):
                edge[1] = True
                if child.state is WAITING:
                    child.wait()

    def again(self, ids):
        for id in ids:
            task = self.tasks[id]
            if task.worker:
                task.ends.append(task.attempt)
                task.lost += 1
            task.worker = None
            for parent in set(ids) & set(task.edges):
                task.edges[parent][1] = False
            task.wait()

    @rule(name=st.sampled_from(NAMES))
    def release(self, name):
        with self.store.transaction():
            self.store.release(self.workers[name], "gone")
        had = [id for id, task in self.tasks.items() if task.worker == name]
        self.again(had)
        if len(had) == 1 and self.tasks[had[0]].lost >= MOST_LOST:
            self.end(had[0], FAILED)

    @rule(states=st.lists(st.sampled_from(ENDED), min_size=1))
    def redo(self, states):
        with self.store.transaction():
            self.store.again(states)
        self.again([id for id, task in self.tasks.items() if task.state in states])

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), state=st.sampled_from([PENDING, *ENDED]))
    def mark(self, data, state):
        ids = self.some(data)
        with self.store.transaction():
            self.store.mark(state, ids)
        if state is PENDING:
            self.again([id for id in ids if self.tasks[id].state not in (WAITING, PENDING)])
        else:
            for id in ids:
                if self.tasks[id].worker:
                    self.tasks[id].ends.append(self.tasks[id].attempt)
                    self.tasks[id].lost += 1
                self.tasks[id].worker, self.tasks[id].state = None, state
            for id in ids:
                self.end(id, state)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), priority=st.integers(-1, 1))
    def prioritize(self, data, priority):
        ids = self.some(data)
        with self.store.transaction():
            self.store.prioritize(priority, ids)
        for id in ids:
            if self.tasks[id].state in (WAITING, PENDING):
                self.tasks[id].priority = priority

    @rule(count=st.integers(0, 3))
    def refused_in_the_middle(self, count):
        def change():
            with self.store.part():
                self.store.add(["1"] * count)
                self.store.add_after([("1", [999_999], [])])

        with self.store.transaction(), pytest.raises(QueueError, match="there is no task 999999"):
            change()

    @rule(whole=st.booleans())
    def kill(self, whole):
        """The owner is killed, in a transaction or between two; the next one goes on with what is on the disk."""
        if not whole:
            self.store._db.execute("BEGIN IMMEDIATE")
            self.store.add(["1"] * 3)
            self.store.take(self.workers["one"], 2)
            self.store._db.execute("PRAGMA cache_spill = 1")
        self.fence += 1
        for suffix in ("", "-journal"):
            old = self.folder / f"{self.fence - 1}.sqlite{suffix}"
            if old.exists():
                shutil.copy(old, self.folder / f"{self.fence}.sqlite{suffix}")
        self.store.close()
        self.store = Store(self.folder / f"{self.fence}.sqlite", self.fence)
        self.store.check()

    @invariant()
    def agree(self):
        rows = {row[0]: (TaskState(row[1]), row[2], row[3]) for row in self.store.tasks()}
        assert rows == {id: (task.state, task.priority, task.attempt) for id, task in self.tasks.items()}
        assert self.store.due == len(self.due)
        states = [task.state for task in self.tasks.values()]
        assert self.store.counts == {state: states.count(state) for state in TaskState}
        for id, task in self.tasks.items():
            known = self.store.task(id)
            assert [attempt["number"] for attempt in known["attempts"]] == task.ends
            assert set(known["waits_for"]) == {parent for parent, (_, met) in task.edges.items() if not met}
        for name, number in self.workers.items():
            held = {(id, task.attempt) for id, task in self.tasks.items() if task.worker == name}
            assert self.store.held(number) == held


TestStore = Model.TestCase
TestStore.settings = settings(max_examples=50, stateful_step_count=30)


def test_pages_of_tasks_in_one_state(tmp_path):
    """Tasks in a state are listed in pages, each state by the index that holds it."""
    store = Store(tmp_path / "1.sqlite", 1)
    with store.transaction():
        store.add(["1"] * 10)
        store.mark(FAILED, [2, 4, 6])
    assert [row[0] for row in store.tasks(state=FAILED, most=2)] == [2, 4]
    assert [row[0] for row in store.tasks(state=FAILED, after=4)] == [6]
    plan = store._db.execute(
        "EXPLAIN QUERY PLAN SELECT id FROM task WHERE id > 4 AND state IN (4) AND state NOT IN (1, 3)"
    )
    assert "task_other" in str(plan.fetchall())
    store.close()


def test_a_task_that_costs_workers(tmp_path):
    """A task whose workers die is given out alone from then on; the fifth death fails it, and nothing else."""
    store = Store(tmp_path / "1.sqlite", 1)
    taken = []
    with store.transaction():
        store.add(["1"] * 3)
        for number in range(5):
            worker = store.worker(str(number))
            taken.append([row[0] for row in store.take(worker, 10)])
            store.release(worker, "died")
    assert taken == [[1, 2, 3], [1], [1], [1], [1]]
    assert store.counts[FAILED] == 1
    assert [row[0] for row in store.tasks(state=PENDING)] == [2, 3]
    store.close()


def test_a_clock_that_is_set_back(tmp_path):
    """A task that is to be tried again after a while is not kept waiting by a clock that jumps."""
    store = Store(tmp_path / "1.sqlite", 1)
    try:
        with store.transaction():
            worker = store.worker("one")
            store.add(["1"], policy=store.policy(1, 10, ""))
            store.take(worker, 1)
            store.finish(worker, [Outcome(1, 1, FAILED, error="x")])
            store.wake(100_000)
            store.wake(50)  # a day before
            store.wake(59)
            assert store.counts[PENDING] == 0
            store.wake(60)
            assert store.counts[PENDING] == 1
    finally:
        store.close()
