"""The names of other systems, on ours, for programs that were written for them."""
