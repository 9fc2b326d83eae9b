"""What we add to Dask's scheduler: who wants which results, what is known of the work, and who dies of it."""
