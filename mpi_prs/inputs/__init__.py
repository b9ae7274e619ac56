"""Datasets: from what the user named to items, to mini-batches, to the object that ``run()`` receives."""
