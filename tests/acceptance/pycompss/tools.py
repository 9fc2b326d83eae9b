"""Programs as tasks, in containers and not, several versions of a task, a reduction, I/O: PyCOMPSs' other decorators."""

import os
import sys

from pycompss.api.api import compss_barrier, compss_wait_on, compss_wait_on_file
from pycompss.api.binary import binary
from pycompss.api.constraint import constraint
from pycompss.api.container import container
from pycompss.api.implement import implement
from pycompss.api.IO import IO
from pycompss.api.on_failure import on_failure
from pycompss.api.parameter import *
from pycompss.api.reduction import reduction
from pycompss.api.task import task


@binary(binary="grep")
@task(infile={Type: FILE_IN_STDIN}, result={Type: FILE_OUT_STDOUT})
def grepper(keyword, infile, result):
    pass


@binary(binary="${SHELL_HERE}", args="-c {{script}}", working_dir="/", fail_by_exit_value=False)
@task(returns=int, out=FILE_OUT_STDOUT)
def script(script, out):
    pass


@on_failure(management="IGNORE", returns=-1)
@binary(binary="sh", args="-c {{script}}", fail_by_exit_value=True)
@task(returns=int)
def strict(script):
    pass


@binary(binary="ls")
@task(hide={Type: IN, Prefix: "--hide="}, found={Type: FILE_OUT, StdIOStream: STDOUT}, returns=int)
def names(hide, folder, found):
    pass


@container(engine="SINGULARITY", image="tools.sif", options="--nv")
@binary(binary="printenv")
@task(found=FILE_OUT_STDOUT)
def inside(variable, found):
    pass


@implement(source_class="tools", method="greet")
@constraint(app_software="gromacs, nothing-of-this-name")
@task(returns=str)
def greet_never(name):
    return "never " + name


@implement(source_class="tools", method="greet")
@constraint(computing_units=2, app_software="gromacs", processor_architecture="amd64", operating_system_type="Linux")
@task(returns=str)
def greet_well(name):
    return "well " + name


@constraint(computing_units=1)
@task(returns=str)
def greet(name):
    return "plain " + name


@IO()
@task(returns=1)
def read(path):
    with open(path) as file:
        return len(file.read())


@reduction(chunk_size="2")
@task(returns=1, numbers=COLLECTION_IN)
def total(start, numbers):
    return start + sum(numbers)


def words(path):
    with open(path) as file:
        return file.read().split()


def main(folder):
    os.chdir(folder)
    with open("text", "w") as file:
        file.write("one\ntwo\nthree\n")
    grepper("t", "text", "lines")
    compss_wait_on_file("lines")
    print(words("lines"))
    code = script("pwd; exit 3", "where")
    compss_wait_on_file("where")
    print(compss_wait_on(code), words("where"), compss_wait_on(strict("exit 4")))
    print(compss_wait_on(names("text", os.getcwd(), "names")))
    compss_wait_on_file("names")
    print(words("names"))
    inside("APPTAINER_CONTAINER", "image")
    compss_wait_on_file("image")
    print(words("image"))
    print(compss_wait_on(greet("Ada")), compss_wait_on(read(os.path.abspath("text"))))
    print(compss_wait_on(total(0, [1, 2, 3, 4, 5])))
    compss_barrier()


if __name__ == "__main__":
    main(sys.argv[1])
