"""What the Python that mpi_prs itself runs in has to be; user processes may run in an older one."""

from __future__ import annotations

OLDEST = (3, 10)
"""The oldest that will do."""
PACKAGES = ("click", "fsspec", "h5py", "numpy", "packaging", "pandas", "pathspec", "pyarrow", "pydantic", "yaml")
"""What the SDK needs, by the names that are imported."""
RUNNER_PACKAGES = (*PACKAGES, "mpi4py", "rich")
"""What jobs need."""
