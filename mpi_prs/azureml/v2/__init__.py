"""Azure ML's v2 YAML: a pipeline job, or a parallel job or component by itself, run as one job of ours.

::

    pipeline.yml ─► nodes ─► PipelineSpec(steps) ─► one ParallelStep ─► JobConfig
       component.yml ─┘                             ▲
       MLTable ─► section of `inputs` ──────────────┘

:func:`~mpi_prs.azureml.v2.loading.load` is the way in. What the keys mean is Azure's word; where it is silent, see
:mod:`mpi_prs.azureml.v2.translate`.
"""
