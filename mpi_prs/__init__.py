"""Azure ML's ParallelRunStep on MPI: batch inference on every GPU and core of a cluster.

This package imports the standard library alone: it is also imported inside the user's own interpreter, which may be
another one than ours.
"""

__version__ = "0.1.0"
