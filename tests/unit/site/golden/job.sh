#!/bin/sh
umask 077
mkdir /home/ada/.hpcnb/runs/0123456789abcdef/claim || exit 0
export PYTHONPATH=/home/ada/.hpcnb/code/c0ffee/hpcnb.zip"${PYTHONPATH:+:$PYTHONPATH}"
export DASK_CONFIG=/home/ada/.hpcnb/runs/0123456789abcdef/dask PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
exec "$HOME"/envs/hpc/bin/python -m hpcnb.pilot --run-dir /home/ada/.hpcnb/runs/0123456789abcdef
