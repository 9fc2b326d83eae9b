#!/bin/bash -l
umask 077
mkdir '/scratch/a da/it'"'"'s'/claim || exit 0
export PYTHONPATH='/x y/hpcnb.zip'"${PYTHONPATH:+:$PYTHONPATH}"
export DASK_CONFIG='/scratch/a da/it'"'"'s'/dask PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
module load python
conda activate 'my env'
exec python -m hpcnb.pilot --run-dir '/scratch/a da/it'"'"'s'
