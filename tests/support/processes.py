"""Settings of user processes, for tests that start or stand for one."""

from __future__ import annotations

import sys
from typing import Any

from mpi_prs.wire.settings import ProcessSettings

PLAIN = {"form": "text", "sep": " ", "header": False, "index": False}
"""How rows are written where nothing is said of it."""


def process_settings(**changes: Any) -> ProcessSettings:
    """As a worker gets them, with patience and without files; ``changes`` replace any."""
    fields: dict[str, Any] = {
        "interpreter": sys.executable,
        "entry_script": "score.py",
        "source_directory": "",
        "arguments": [],
        "row_form": None,
        "run_invocation_timeout": 30.0,
        "task_overhead_timeout": 30.0,
        "init_timeout": 60.0,
        "logging_level": "INFO",
        "payloads": "plain",
        "tables": False,
        "columns": "",
        "run": "",
        "spill": "",
        "node": "n1",
    }
    return ProcessSettings(**{**fields, **changes})
