"""Whole notebooks on a compute node: Jupyter kernels, each in an allocation of its own."""
