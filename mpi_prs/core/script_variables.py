"""The environment variables that tell a user process about itself, whatever started it; they pass on to its children.

::

    worker (engine/places.py), debug ──► environment ──► host, azureml_user.parallel_run.EntryScript, scripts

What the SDK's runs add to these stands in :mod:`mpi_prs.child.context.script_context`. Standard library only.
"""

from __future__ import annotations

AZUREML = "MPI_PRS_AZUREML"
"""When ``azureml`` and ``azureml_user`` are ours: auto, always or never."""
TENSORFLOW1 = "MPI_PRS_TENSORFLOW1"
"""``1``: ``import tensorflow`` gives TensorFlow 2's interface of version 1."""
TABLES_IN_FILES = "MPI_PRS_TABLES_IN_FILES"
"""``1``: tables come by files in scratch, not by a descriptor of the worker's, which a container cannot open."""
OUTPUT = "AZUREML_BI_OUTPUT_PATH"
LOG_FOLDER = "MPI_PRS_LOG_DIR"
SOURCE_DIRECTORY = "MPI_PRS_SOURCE_DIRECTORY"
PROCESS_NAME = "MPI_PRS_PROCESS_NAME"
LOGGING_LEVEL = "MPI_PRS_LOGGING_LEVEL"
RUN_ID = "AZUREML_RUN_ID"
"""Existing scripts take it for the sign that they are run by the service; its value is the step run's id, or a name."""
