"""Blocked matrix multiplication, as PyCOMPSs programs are written: run with the number of blocks and their size."""

import sys

import numpy as np
from pycompss.api.api import compss_barrier, compss_wait_on
from pycompss.api.constraint import constraint
from pycompss.api.parameter import *
from pycompss.api.task import task


@task(returns=1)
def block(seed, size):
    return np.random.default_rng(seed).random((size, size))


@constraint(computing_units="$UNITS")
@task(c=INOUT)
def multiply(a, b, c):
    c += a @ b


@task(rows={Type: COLLECTION_IN, Depth: 2}, returns=object)
def trace(rows):
    return sum(float(np.trace(rows[i][i])) for i in range(len(rows)))


def main(n, size):
    a = [[block(i * n + j, size) for j in range(n)] for i in range(n)]
    b = [[block(100 + i * n + j, size) for j in range(n)] for i in range(n)]
    c = [[np.zeros((size, size)) for _ in range(n)] for _ in range(n)]
    for i in range(n):
        for j in range(n):
            for k in range(n):
                multiply(a[i][k], b[k][j], c[i][j])
    of = trace(c)
    compss_barrier()
    a, b, c, of = compss_wait_on(a, b, c, of)
    error = np.abs(np.block(a) @ np.block(b) - np.block(c)).max()
    print(f"error {error:.1g}, trace {abs(of - np.trace(np.block(c))) < 1e-9}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
