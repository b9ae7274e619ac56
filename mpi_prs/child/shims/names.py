"""One table: the names of Azure ML's SDK, where ours lie, and which of Azure's modules have them.

``mpi_prs`` itself exports :data:`PUBLIC`; :mod:`mpi_prs.child.shims.finder` makes modules of :data:`MODULES`. Nothing
is imported here: a name costs nothing until it is asked for. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping

VERSION = "1.60.0+mpi.prs"
"""``azureml.core.VERSION``: the SDK whose names these are, and that they are ours."""

_OURS: Mapping[str, str] = {
    # module of ours: its names
    "mpi_prs.core.errors": "ComputeTargetException ModelNotFoundException PipelineError RunFailed WorkspaceError",
    "mpi_prs.child.context.data": "DEFAULT_CPU_IMAGE DEFAULT_GPU_IMAGE",
    "mpi_prs.child.parallel_run": "EntryScript ParallelRunException ParallelRunExceptionCode",
    "mpi_prs.azureml.definition.data": "InputPortBinding PipelineData PipelineOutputFileDataset "
    "PipelineOutputTabularDataset",
    "mpi_prs.azureml.experiment": "Experiment",
    "mpi_prs.azureml.definition.parallel_run_config": "ParallelRunConfig",
    "mpi_prs.azureml.definition.parallel_run_step": "ParallelRunStep",
    "mpi_prs.azureml.definition.parameter": "PipelineParameter",
    "mpi_prs.azureml.definition.pipeline": "Pipeline StepSequence",
    "mpi_prs.azureml.runs.run": "PipelineRun PortDataReference Run StepRun StepRunOutput",
    "mpi_prs.azureml.runs.details": "RunDetails",
    "mpi_prs.azureml.authentication": "AbstractAuthentication ArcTokenAuthentication AzureCliAuthentication "
    "AzureMLTokenAuthentication InteractiveLoginAuthentication MsiAuthentication ServicePrincipalAuthentication "
    "TokenAuthentication",
    "mpi_prs.azureml.compute.target": "AmlCompute AmlComputeProvisioningConfiguration AmlComputeStatus ComputeTarget",
    "mpi_prs.azureml.compute.status": "AmlComputeNodeStateCounts ScaleSettings",
    "mpi_prs.azureml.environments.packages": "CondaDependencies",
    "mpi_prs.azureml.datasets.column_types": "DataType PromoteHeadersBehavior",
    "mpi_prs.azureml.datasets.dataset": "AbstractDataset FileDataset TabularDataset",
    "mpi_prs.azureml.datasets.factory": "Dataset FileDatasetFactory TabularDatasetFactory",
    "mpi_prs.azureml.datasets.consumption": "DatasetConsumptionConfig",
    "mpi_prs.azureml.datasets.outputs": "OutputFileDatasetConfig OutputTabularDatasetConfig",
    "mpi_prs.azureml.datastores.datastore": "AzureBlobDatastore AzureFileDatastore DataPath Datastore FolderDatastore",
    "mpi_prs.azureml.environments.environment": "DockerConfiguration DockerSection Environment PythonSection "
    "RunConfiguration SparkSection",
    "mpi_prs.azureml.models.model": "Model",
    "mpi_prs.azureml.workspace": "Workspace",
}

PUBLIC: Mapping[str, str] = {name: f"{module}:{name}" for module, names in _OURS.items() for name in names.split()}
"""Name → ``module:attribute`` of the SDK's classes."""

_IN_CONTEXT: Mapping[str, str] = {
    "mpi_prs.child.context.data": "AbstractDataset AzureBlobDatastore AzureFileDatastore Dataset Datastore Environment "
    "FileDataset FolderDatastore TabularDataset",
    "mpi_prs.child.context.model": "Model",
    "mpi_prs.child.context.run": "Experiment PipelineRun PortDataReference Run StepRun StepRunOutput",
    "mpi_prs.child.context.workspace": "Workspace",
}
CONTEXT: Mapping[str, str] = {
    PUBLIC[name]: f"{module}:{name}" for module, names in _IN_CONTEXT.items() for name in names.split()
}
"""Target of a public class → that of what entry scripts have of it in every Python."""

_OTHER_NAMES: Mapping[str, str] = {
    "AzureMLException": "mpi_prs.core.errors:MpiPrsError",
    "ExperimentExecutionException": "mpi_prs.core.errors:RunFailed",
    "PipelineDataset": "mpi_prs.azureml.definition.data:PipelineOutputFileDataset",
    "ProjectSystemException": "mpi_prs.core.errors:WorkspaceError",
    "UserErrorException": "mpi_prs.core.errors:UserMistake",
    "VERSION": "mpi_prs.child.shims.names:VERSION",
    "WorkspaceException": "mpi_prs.core.errors:WorkspaceError",
    "__version__": "mpi_prs.child.shims.names:VERSION",
}
"""What Azure calls otherwise."""

_STEPS = "ParallelRunConfig ParallelRunStep"
_EXCEPTIONS = (
    "AzureMLException ComputeTargetException ExperimentExecutionException ModelNotFoundException ParallelRunException "
    "ProjectSystemException UserErrorException WorkspaceException"
)

_AZURE: Mapping[str, str] = {
    # module of Azure's: its names
    "azureml": "",
    "azureml.contrib": "",
    "azureml.contrib.pipeline": "",
    "azureml.contrib.pipeline.steps": _STEPS,
    "azureml.contrib.pipeline.steps.parallel_run_config": "ParallelRunConfig",
    "azureml.contrib.pipeline.steps.parallel_run_step": "ParallelRunStep",
    "azureml.core": "ComputeTarget Dataset Datastore Environment Experiment Model Run RunConfiguration VERSION "
    "Workspace __version__",
    "azureml.core.authentication": "AbstractAuthentication ArcTokenAuthentication AzureCliAuthentication "
    "AzureMLTokenAuthentication InteractiveLoginAuthentication MsiAuthentication ServicePrincipalAuthentication "
    "TokenAuthentication",
    "azureml.core.compute": "AmlCompute ComputeTarget",
    "azureml.core.compute.amlcompute": "AmlCompute AmlComputeNodeStateCounts AmlComputeProvisioningConfiguration "
    "AmlComputeStatus ScaleSettings",
    "azureml.core.compute.compute": "ComputeTarget",
    "azureml.core.compute_target": "ComputeTargetException",
    "azureml.core.conda_dependencies": "CondaDependencies",
    "azureml.core.dataset": "Dataset",
    "azureml.core.datastore": "Datastore",
    "azureml.core.environment": "CondaDependencies DEFAULT_CPU_IMAGE DEFAULT_GPU_IMAGE DockerSection Environment "
    "PythonSection SparkSection",
    "azureml.core.experiment": "Experiment",
    "azureml.core.model": "Model",
    "azureml.core.run": "Run",
    "azureml.core.runconfig": "CondaDependencies DEFAULT_CPU_IMAGE DEFAULT_GPU_IMAGE DockerConfiguration "
    "RunConfiguration",
    "azureml.core.workspace": "Workspace",
    "azureml.data": "AzureBlobDatastore AzureFileDatastore DataType FileDataset OutputFileDatasetConfig TabularDataset",
    "azureml.data.abstract_dataset": "AbstractDataset",
    "azureml.data.azure_storage_datastore": "AzureBlobDatastore AzureFileDatastore",
    "azureml.data.datapath": "DataPath",
    "azureml.data.dataset_consumption_config": "DatasetConsumptionConfig",
    "azureml.data.dataset_factory": "DataType FileDatasetFactory TabularDatasetFactory",
    "azureml.data.dataset_type_definitions": "PromoteHeadersBehavior",
    "azureml.data.file_dataset": "FileDataset",
    "azureml.data.output_dataset_config": "OutputFileDatasetConfig OutputTabularDatasetConfig",
    "azureml.data.tabular_dataset": "TabularDataset",
    "azureml.exceptions": _EXCEPTIONS,
    "azureml.pipeline": "",
    "azureml.pipeline.core": "InputPortBinding OutputFileDatasetConfig Pipeline PipelineData PipelineDataset "
    "PipelineParameter PipelineRun PortDataReference StepRun StepSequence",
    "azureml.pipeline.core.builder": "PipelineData StepSequence",
    "azureml.pipeline.core.graph": "InputPortBinding PipelineDataset PipelineParameter",
    "azureml.pipeline.core.pipeline": "Pipeline",
    "azureml.pipeline.core.pipeline_output_dataset": "PipelineOutputFileDataset PipelineOutputTabularDataset",
    "azureml.pipeline.core.run": "PipelineRun PortDataReference StepRun StepRunOutput",
    "azureml.pipeline.steps": _STEPS,
    "azureml.pipeline.steps.parallel_run_config": "ParallelRunConfig",
    "azureml.pipeline.steps.parallel_run_step": "ParallelRunStep",
    "azureml.widgets": "RunDetails",
    "azureml_user": "",
    "azureml_user.parallel_run": "EntryScript ParallelRunException ParallelRunExceptionCode",
}

MODULES: Mapping[str, Mapping[str, str]] = {
    module: {name: _OTHER_NAMES.get(name) or PUBLIC[name] for name in names.split()} for module, names in _AZURE.items()
}
"""Module of Azure's → its names → ``module:attribute``."""

_ONLY_PARALLEL_RUN_STEP = "mpi_prs runs ParallelRunStep alone: put the work into a function run(mini_batch)"
_NOT_OURS = "mpi_prs neither trains nor serves models; that part of the script needs Azure's own packages"
_SLURM = "computes are Slurm partitions or this machine: use AmlCompute"

ADVICE: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("AutoMLStep", "CommandStep", "DatabricksStep", "DataTransferStep", "EstimatorStep", "HyperDriveStep"),
            *("MpiStep", "PythonScriptStep", "RScriptStep", "ScriptRunConfig", "SynapseSparkStep"),
        ),
        _ONLY_PARALLEL_RUN_STEP,
    ),
    **dict.fromkeys(("automl", "hyperdrive", "train", "Webservice", "webservice", "InferenceConfig"), _NOT_OURS),
    **dict.fromkeys(
        (
            *("AksCompute", "BatchCompute", "ComputeInstance", "DatabricksCompute", "DataFactoryCompute"),
            *("HDInsightCompute", "KubernetesCompute", "RemoteCompute", "SynapseCompute"),
        ),
        _SLURM,
    ),
    "DataReference": "use a Dataset, such as Dataset.File.from_files(datastore.path(…)), as input or side input",
    "data_reference": "use a Dataset, such as Dataset.File.from_files(datastore.path(…)), as input or side input",
    "Keyvault": "keep secrets in the environment or in a file that only you can read",
    "PublishedPipeline": "keep the script that submits the pipeline, and run it again with `mpi-prs exec`",
    "PipelineEndpoint": "keep the script that submits the pipeline, and run it again with `mpi-prs exec`",
    "Schedule": "let cron or scrontab run `mpi-prs exec SCRIPT`",
    "telemetry": "mpi_prs collects nothing about its users; remove the import",
}
"""Last part of a name that we don't have → what to use."""
