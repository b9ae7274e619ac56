"""HTML for Jupyter, with everything escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


def run_table(rows: Mapping[str, str]) -> str:
    """A small table of names and values."""
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"
