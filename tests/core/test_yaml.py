"""YAML is 1.2 wherever it is read; what is written reads the same in 1.1, too, as other programs have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.azureml.environments.packages import CondaDependencies
from mpi_prs.core.errors import ConfigError
from mpi_prs.core.yaml import as_yaml, parse_yaml, read_document

SCALARS = [("010", "010"), ("1:30", "1:30"), ("NO", "NO"), ("on", "on"), ("1e3", 1000.0), ("true", True), ("0", 0)]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_every_reader_takes_a_scalar_for_the_same(tmp_path: Path, text: str, value: Any) -> None:
    path = tmp_path / "a.yml"
    path.write_text(f"key: {text}\n")
    assert read_document(path, (), ()).data == {"key": value}
    assert parse_yaml(f"key: {text}", "x") == {"key": value}
    if isinstance(value, str):  # conda's files: a channel named NO is not False
        path.write_text(f"name: x\nchannels: [{text}]\ndependencies: []\n")
        assert list(CondaDependencies(str(path)).conda_channels) == [value]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029"))
"""Without the line breaks of Unicode, which PyYAML does not write so that it can read them."""


@given(st.sampled_from([text for text, _ in SCALARS] + ["1e-3", ".5", "0o7", "0x1F", "~", "", "=", "<<"]) | TEXTS)
def test_a_text_that_is_written_is_read_as_that_text(text: str) -> None:
    written = as_yaml({"key": text, "list": [text]})
    assert parse_yaml(written, "x") == {"key": text, "list": [text]}
    assert yaml.safe_load(written) == {"key": text, "list": [text]}


def test_text_stays_text_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("a: {b: {v: 1.10, t: true}, c: 1.10}\nd: {v: 010, n: 1.10, t: true}\ne: 1.10\n")
    data = read_document(path, ["a.b.w=2.0"], ("a.b", "e", "nowhere.at.all"), no_numbers=["d"]).data
    assert data == {
        "a": {"b": {"v": "1.10", "t": "true", "w": "2.0"}, "c": 1.1},
        "d": {"v": "010", "n": "1.10", "t": True},
        "e": "1.10",
    }


@pytest.mark.parametrize("text", ["a: [", "a: 1\na: 2", "a: !!python/none x"])
def test_what_is_no_yaml_is_one_message(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yml"
    path.write_text(text)
    for read in (lambda: read_document(path, (), ()), lambda: parse_yaml(text, str(path))):
        with pytest.raises(ConfigError, match=rf"^{path}, line \d"):
            read()
