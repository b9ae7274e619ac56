"""The SDK's registries: workspace, compute, datastores, datasets, models, environments."""
