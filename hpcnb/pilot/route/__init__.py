"""The ways on which the agent reaches the allocation, seen from there."""
