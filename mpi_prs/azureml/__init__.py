"""Azure's SDK. This module is its façade: the one way from a room up to those that are built on it.

What a workspace, a pipeline or a run does by way of rooms above its own (``ws.experiments``, ``pipeline.submit``) goes
through here, and is imported when it is asked for, so that who opens a workspace (``mpi-prs models list``) waits for
none of it: nowhere else in the SDK is a module of ours imported in a function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi_prs.azureml.compute.target import ComputeTarget
    from mpi_prs.azureml.datasets.dataset import FileDataset, TabularDataset
    from mpi_prs.azureml.datastores.datastore import Datastore
    from mpi_prs.azureml.definition.pipeline import Pipeline
    from mpi_prs.azureml.environments.environment import Environment
    from mpi_prs.azureml.experiment import Experiment
    from mpi_prs.azureml.models.model import Model
    from mpi_prs.azureml.workspace import Workspace


def changed_settings(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A workspace's settings with some replaced. Raises WorkspaceError: one is none, or does not take this value."""
    from mpi_prs.azureml.store.settings import changed

    return changed(settings, changes)


def computes_of(workspace: Workspace) -> Mapping[str, ComputeTarget]:
    """Name → compute target, of all in a workspace."""
    from mpi_prs.azureml.compute.target import computes_of

    return computes_of(workspace)


def datastores_of(workspace: Workspace) -> Mapping[str, Datastore]:
    """Name → datastore, of all in a workspace."""
    from mpi_prs.azureml.datastores.datastore import datastores_of

    return datastores_of(workspace)


def datastore_of(workspace: Workspace, name: str) -> Datastore:
    """The datastore of a name. Raises WorkspaceError: there is none."""
    from mpi_prs.azureml.datastores.datastore import Datastore

    found: Datastore = Datastore.get(workspace, name)
    return found


def datasets_of(workspace: Workspace) -> Mapping[str, FileDataset | TabularDataset]:
    """Name → latest version of each registered dataset."""
    from mpi_prs.azureml.datasets.dataset import datasets_of

    return datasets_of(workspace)


def models_of(workspace: Workspace) -> Mapping[str, Model]:
    """Name → latest version of each registered model."""
    from mpi_prs.azureml.models.model import models_of

    return models_of(workspace)


def environments_of(workspace: Workspace) -> Mapping[str, Environment]:
    """Name → latest version of each registered environment."""
    from mpi_prs.azureml.environments.environment import environments_of

    return environments_of(workspace)


def experiments_of(workspace: Workspace) -> Mapping[str, Experiment]:
    """Name → experiment, of all in a workspace."""
    from mpi_prs.azureml.experiment import experiments_of

    return experiments_of(workspace)


def run_of(workspace: Workspace, run_id: str) -> Any:
    """The run of an id. Raises WorkspaceError: there is none."""
    from mpi_prs.azureml.runs.run import Run

    return Run.get(workspace, run_id)


def problems_of(pipeline: Pipeline) -> list[str]:
    """What is wrong with a pipeline, see ``Pipeline.validate``."""
    from mpi_prs.azureml.submit.compiling import problems_of

    return problems_of(pipeline)


def submit_pipeline(pipeline: Pipeline, experiment: str, **kwargs: Any) -> Any:
    """Submit a pipeline to the experiment of a name, see ``Experiment.submit``."""
    from mpi_prs.azureml.experiment import Experiment

    return Experiment(pipeline.workspace, experiment).submit(pipeline, **kwargs)
