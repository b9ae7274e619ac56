"""Slurm: what it told this process, the batch script, and the few questions and orders it is given."""
