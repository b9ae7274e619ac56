"""The messages: what one side packs, the other side unpacks."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.wire import messages
from mpi_prs.wire.messages import Tag
from mpi_prs.wire.record import RECORD, Record, unpack_records
from mpi_prs.wire.settings import ProcessSettings, Share, WorkerSettings
from tests.support.processes import process_settings

NUMBERS = st.integers(0, 2**63 - 1)
UINT32 = st.integers(0, 2**32 - 1)
TEXT = st.text(max_size=20)
RECORDS = st.builds(
    Record,
    NUMBERS,
    UINT32,
    UINT32,
    UINT32,
    UINT32,
    st.integers(0, 2**64 - 1),
    st.floats(allow_nan=False),
    st.floats(allow_nan=False, width=32),
    st.floats(allow_nan=False, width=32),
)


def settings(**changes: Any) -> WorkerSettings:
    fields: dict[str, Any] = {
        "run_root": "/scratch/out",
        "run": "0c1d",
        "token": "a1b2",
        "last_try": 3,
        "bisect_on_failure": True,
        "processes": 4,
        "share": Share(first_process=8, node_processes=16, first_on_gpus=4, core_processes=8),
        "gpus_per_process": 2,
        "environment_variables": {"KEY": "value"},
        "checks_code": True,
        "azureml": "auto",
        "heartbeat_interval": 5.0,
        "window": 0.03,
        "stop_grace": 10.0,
        "scratch": None,
        "scratch_limit": 10 << 30,
        "storages": [{"account_key": "s3cret"}],
        "side_inputs": [
            {"name": "model", "path": "abfs://models/m", "mode": "mount", "storage": {"account_key": "s3cret"}}
        ],
        "master_timeout": 240.0,
        "process": process_settings(arguments=["--model", "models/digits"]),
    }
    return WorkerSettings(**{**fields, **changes})


@given(
    run_root=TEXT,
    arguments=st.lists(TEXT),
    environment_variables=st.dictionaries(TEXT, TEXT),
    row_form=st.none() | st.dictionaries(TEXT, st.none() | st.booleans() | TEXT),
    processes=UINT32,
    window=st.floats(allow_nan=False),
)
def test_the_settings_come_back(arguments: Any, row_form: Any, **changes: Any) -> None:
    process = process_settings(arguments=arguments, row_form=row_form)
    sent = settings(**changes, process=process)
    assert WorkerSettings.unpack(sent.pack()) == sent
    assert ProcessSettings.unpack(process.pack()) == process


def test_a_path_that_is_not_utf_8_comes_back() -> None:
    path = os.fsdecode(b"/scratch/\xff\n out")
    assert WorkerSettings.unpack(settings(run_root=path).pack()).run_root == path


def test_settings_of_another_version_are_refused() -> None:
    fields = json.loads(settings().pack())
    with pytest.raises(TypeError, match="unknown_setting"):
        WorkerSettings.unpack(json.dumps({**fields, "unknown_setting": 1}).encode())


@given(st.dictionaries(TEXT, st.none() | st.booleans() | NUMBERS | TEXT))
def test_a_small_message_comes_back(fields: dict[str, Any]) -> None:
    assert messages.unpack_json(messages.pack_json(**fields)) == fields


@given(st.lists(st.tuples(NUMBERS, UINT32, UINT32)))
def test_ranges_come_back_at_16_bytes_each(ranges: list[tuple[int, int, int]]) -> None:
    body = messages.pack_ranges(ranges)
    assert len(body) == 16 * len(ranges)
    assert messages.unpack_ranges(body) == ranges


@given(st.lists(st.tuples(RECORDS, st.binary(max_size=40)), max_size=8), st.integers(1, 4))
def test_results_come_back_however_they_were_collected(results: list[tuple[Record, bytes]], together: int) -> None:
    """A worker joins pieces of several records each."""
    packed = [RECORD.pack(*record) for record, _rows in results]
    pieces = [b"".join(packed[at : at + together]) for at in range(0, len(packed), together)]
    body = messages.pack_results(len(results), pieces, [rows for _record, rows in results])
    records, rows = messages.unpack_results(body)
    assert unpack_records(records) == [record for record, _rows in results]
    assert bytes(rows) == b"".join(rows for _record, rows in results)


def test_unpacking_results_copies_nothing() -> None:
    body = messages.pack_results(1, [bytes(RECORD.size)], [b"rows"])
    records, rows = messages.unpack_results(body)
    assert records.obj is body
    assert rows.obj is body


@given(RECORDS, st.binary(min_size=1).filter(lambda path: b"\0" not in path))
def test_a_spilled_result_comes_back_with_any_path(record: Record, path: bytes) -> None:
    body = messages.pack_spilled(RECORD.pack(*record), path.decode("utf-8", "surrogateescape"))
    packed, name = messages.unpack_spilled(body)
    assert unpack_records(packed) == [record]
    assert name.encode("utf-8", "surrogateescape") == path


def test_no_two_messages_share_a_tag_and_every_tag_is_a_legal_mpi_tag() -> None:
    tags = [int(tag) for tag in Tag.__members__.values()]
    assert len(set(tags)) == len(tags)
    assert all(0 < tag <= 32767 for tag in tags)
