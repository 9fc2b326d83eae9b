"""Counts words in files, with a class, a group that fails, ignored failures and a file that grows: PyCOMPSs' other idioms."""

import os
import sys

from pycompss.api.api import (
    TaskGroup,
    compss_barrier_group,
    compss_delete_file,
    compss_file_exists,
    compss_open,
    compss_wait_on,
    compss_wait_on_file,
)
from pycompss.api.exceptions import COMPSsException
from pycompss.api.local import local
from pycompss.api.on_failure import on_failure
from pycompss.api.parameter import COMMUTATIVE, FILE, FILE_IN, FILE_INOUT, FILE_OUT, IN, INOUT, Direction, Type
from pycompss.api.task import task


@task(text=FILE_IN, returns=dict)
def count(text):
    found = {}
    with open(text) as lines:
        for word in lines.read().split():
            found[word] = found.get(word, 0) + 1
    return found


@task(total=COMMUTATIVE)
def merge(total, part):
    for word, number in part.items():
        total[word] = total.get(word, 0) + number


class Counter:
    def __init__(self):
        self.n = 0

    @task()
    def add(self, n):
        self.n += n

    @task(target_direction=IN, returns=int)
    def get(self):
        return self.n


@task(path=FILE_OUT)
def write(path, text):
    with open(path, "w") as file:
        file.write(text)


@task(path={Type: FILE, Direction: INOUT})
def append(path, text):
    with open(path, "a") as file:
        file.write(text)


@task(path=FILE_INOUT)
def twice(path):
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text * 2)


@on_failure(management="IGNORE", returns=-1)
@task(returns=int, time_out=60)
def doubtful(n):
    if n == 2:
        raise ValueError("two")
    return n


@task(v=INOUT)
def fail(v, message):
    raise COMPSsException(message)


@local
def show(total):
    print(sorted(total.items()))


def main(folder):
    os.chdir(folder)
    names = []
    for number, text in enumerate(["a b a", "b c", "a"]):
        names.append(f"text{number}")
        write(names[-1], text)
    total = {}
    for name in names:
        merge(total, count(name))
    show(total)
    counter = Counter()
    for n in range(4):
        counter.add(n)
    print(compss_wait_on(counter.get()), compss_wait_on(counter).n)
    append("text0", " d")
    twice("text0")
    with compss_open("text0") as file:
        print(file.read())
    write("text3", "x")
    compss_wait_on_file("text3")
    print(compss_file_exists("text3", "nowhere"), compss_delete_file("text3"), os.path.exists("text3"))
    print(compss_wait_on([doubtful(n) for n in range(4)]))
    with TaskGroup("calm", implicit_barrier=False):
        rest = doubtful(7)
    compss_barrier_group("calm")
    print(compss_wait_on(rest))
    try:
        with TaskGroup("broken"):
            fail([1], "as told")
    except COMPSsException as error:
        print("caught:", error)


if __name__ == "__main__":
    main(sys.argv[1])
