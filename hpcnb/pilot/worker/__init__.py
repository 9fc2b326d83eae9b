"""What a call needs where it runs: on a worker of Dask's, in its batch, in a process of its own, out of the cache."""
