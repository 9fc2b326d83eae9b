"""Sessions: kernels that live in the allocation, what they said, and the process that serves them."""
