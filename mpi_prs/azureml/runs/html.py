"""HTML for Jupyter, with everything escaped. Standard library only, Python 3.7."""

from __future__ import annotations

from html import escape
from typing import Mapping  # noqa: UP035  # Python 3.7


def run_table(rows: Mapping[str, str]) -> str:
    """A small table of names and values."""
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"
