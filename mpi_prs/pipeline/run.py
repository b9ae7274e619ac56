"""Runs under one roof: ``from mpi_prs.pipeline.run import Run, PipelineRun, StepRun, PortDataReference``."""

from mpi_prs.pipeline.pipeline_run import PipelineRun
from mpi_prs.pipeline.run_base import Run
from mpi_prs.pipeline.run_outputs import PortDataReference, StepRunOutput
from mpi_prs.pipeline.step_run import StepRun

__all__ = ["PipelineRun", "PortDataReference", "Run", "StepRun", "StepRunOutput"]
