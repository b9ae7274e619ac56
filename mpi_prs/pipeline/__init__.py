"""The SDK's pipelines: their definition, what becomes of it, and how a run of it is followed."""
