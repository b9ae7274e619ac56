"""Runs under one roof: ``from mpi_prs.azureml.runs.run import Run, PipelineRun, StepRun, PortDataReference``."""

from mpi_prs.azureml.runs.outputs import PortDataReference, StepRunOutput
from mpi_prs.azureml.runs.pipeline_run import PipelineRun
from mpi_prs.azureml.runs.run_base import Run
from mpi_prs.azureml.runs.step_run import StepRun

__all__ = ["PipelineRun", "PortDataReference", "Run", "StepRun", "StepRunOutput"]
