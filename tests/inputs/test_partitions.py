"""Files by partition: one group for each combination that exists, no file lost, in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.core.errors import InputError, OutputError
from mpi_prs.core.partition_values import partition_values
from mpi_prs.inputs import partitions
from mpi_prs.inputs.listing import FileInput, list_files
from mpi_prs.inputs.partition_format import HiveFolders, PartitionFormat
from mpi_prs.inputs.partitions import check_partition_keys, group_by_partition, to_json
from tests.support.jobs import REPOSITORY


def test_files_are_grouped_by_the_keys_asked_for_in_the_order_of_the_list() -> None:
    format = PartitionFormat.parse("{user}/{season}/{genres}.wav")
    paths = [
        b"/d/user1/fall/orchestra.wav",
        b"/d/user1/winter/disco.wav",
        b"/d/user2/summer/piano.wav",
        b"/d/user3/fall/spirituality.wav",
        b"/d/user4/fall/piano.wav",
        b"/d/user4/spring/piano.wav",
    ]
    items = [(path, format.required_values(path)) for path in paths]
    assert list(group_by_partition(items, ["user", "genres"])) == [
        ({"user": "user1", "genres": "orchestra"}, paths[:1]),
        ({"user": "user1", "genres": "disco"}, paths[1:2]),
        ({"user": "user2", "genres": "piano"}, paths[2:3]),
        ({"user": "user3", "genres": "spirituality"}, paths[3:4]),
        ({"user": "user4", "genres": "piano"}, paths[4:]),
    ]
    assert [values for values, _ in group_by_partition(items, ["season"])] == [
        {"season": "fall"},
        {"season": "winter"},
        {"season": "summer"},
        {"season": "spring"},
    ]


def test_no_files_make_no_groups() -> None:
    assert list(group_by_partition([], ["user"])) == []


values_of_a_key = st.sampled_from(
    [
        st.sampled_from(["", "a", "b", "ü ", "a\x00b"]) | st.none(),
        st.integers(-2, 2) | st.none(),
        st.sampled_from([0.0, -0.0, 1.5, float("inf"), 1e300]) | st.none(),
        st.booleans() | st.none(),
        st.dates(date(2020, 1, 1), date(2020, 1, 3)),
        st.sampled_from([datetime(2020, 1, 1), datetime(2020, 1, 1, 0, 0, 0, 1)]),
        st.sampled_from([datetime(2020, 1, 1, tzinfo=timezone.utc), datetime(2021, 1, 1, tzinfo=timezone.utc)]),
    ]
)


@settings(max_examples=80)
@given(st.data())
def test_groups_are_those_of_pandas(data: st.DataObject) -> None:
    """Values, order of groups, order of files; also where more combinations come than are remembered."""
    columns = [data.draw(values_of_a_key) for _ in range(data.draw(st.integers(1, 3)))]
    names = [f"key{number}" for number in range(len(columns))]
    rows = data.draw(st.lists(st.tuples(*columns), max_size=40))
    keys = data.draw(st.permutations(names).flatmap(lambda order: st.integers(1, len(order)).map(lambda n: order[:n])))
    items = [(b"/data/%d/\xff" % number, dict(zip(names, row, strict=True))) for number, row in enumerate(rows)]
    frame = pd.DataFrame(rows, columns=names, dtype=object).assign(path=[path for path, _ in items])
    expected = [list(group["path"]) for _, group in frame.groupby(keys, dropna=False, sort=False)] if rows else []
    firsts = dict(items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "_REMEMBERED", data.draw(st.sampled_from([1, 2, 1000])))
        found = list(group_by_partition(iter(items), keys))
    assert [paths for _, paths in found] == expected
    for values, paths in found:
        assert list(values.items()) == [(key, firsts[paths[0]][key]) for key in keys]


def test_files_whose_value_is_not_a_number_are_one_group() -> None:
    items = [(b"/%d" % number, {"x": float("nan")}) for number in range(5)]
    ((values, paths),) = group_by_partition(items, ["x"])
    assert values["x"] != values["x"]
    assert len(paths) == 5


layouts = st.lists(
    st.tuples(st.sampled_from(["jane", "o%", "ü ü"]), st.sampled_from(["a.b", "fall"]), st.integers(0, 3)),
    min_size=1,
    max_size=15,
    unique=True,
)


@settings(max_examples=25)
@given(layouts, st.booleans(), st.sampled_from([["user"], ["season"], ["season", "user"]]))
def test_files_on_disk_are_grouped_as_by_pandas(layout: list[Any], hive: bool, keys: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for user, season, number in layout:
            names = [f"user={user.replace('%', '%25')}", f"season={season}"] if hive else [user, season]
            path = Path(folder, *names, f"{number}.wav")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        folders, format = HiveFolders(folder), PartitionFormat.parse("{user}/{season}/{n}.wav")

        def items() -> Iterator[tuple[bytes, Any]]:
            for path in list_files(FileInput((folder,))):
                yield path, folders.values(path) if hive else format.required_values(path, folder)

        listed = list(items())
        frame = pd.DataFrame([{**values, "path": path} for path, values in listed])
        expected = [
            (dict(zip(keys, values, strict=True)), list(group["path"]))
            for values, group in frame.groupby(keys, sort=False)
        ]
        assert list(group_by_partition(items(), keys)) == expected
        assert sum(len(paths) for _, paths in expected) == len(layout)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (["genre"], "'genre' is not a key of partition_format '{user}': expected one or more of user, season"),
        ([], "partition_keys is empty: expected one or more of user, season"),
        (["user", "user"], "expected each key once"),
    ],
)
def test_keys_that_the_dataset_does_not_have_are_refused(keys: list[str], says: str) -> None:
    check_partition_keys(["season", "user"], ["user", "season"], "x")
    with pytest.raises(InputError) as raised:
        check_partition_keys(keys, ["user", "season"], "partition_format '{user}'")
    assert says in str(raised.value)


def test_a_full_disk_is_said_with_the_folder_and_what_to_do(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(OutputError, match=r"missing: No such file.*TMPDIR"):
        list(group_by_partition([(b"/a", {"x": 1})], ["x"], scratch=missing))


def test_a_grouping_left_half_way_leaves_no_file(tmp_path: Path) -> None:
    groups = group_by_partition([(b"/a", {"x": 1}), (b"/b", {"x": 2})], ["x"], scratch=tmp_path)
    assert next(groups)[0] == {"x": 1}
    assert list(tmp_path.iterdir()) == []
    descriptors = len(os.listdir("/proc/self/fd"))
    groups.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) < descriptors


def test_memory_stays_small_when_every_file_is_a_group_of_its_own() -> None:
    """300,000 groups as a dict of tuples and lists would take 150 MB."""
    script = (
        "import resource\n"
        "from mpi_prs.inputs.partitions import group_by_partition\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) // 1024\n"
        "before = peak()\n"
        "items = ((b'/a/folder/with/a/name/%09d' % n, {'n': 'value-%09d' % n}) for n in range(300_000))\n"
        "groups = sum(1 for _ in group_by_partition(items, ['n']))\n"
        "print(groups, peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    groups, megabytes = map(int, done.stdout.split())
    assert groups == 300_000
    assert megabytes < 100


# Values in JSON

anything = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters() | st.just("\udcff"))
    | st.dates()
    | st.datetimes()
    | st.datetimes(timezones=st.just(timezone.utc))
)


@settings(max_examples=200)
@given(st.dictionaries(st.text(), anything))
def test_values_survive_json_with_their_types(values: dict[str, Any]) -> None:
    text = json.dumps(to_json(values), allow_nan=False)
    back = partition_values(json.loads(text.encode("ascii")))
    assert list(back.items()) == list(values.items())
    assert [type(value) for value in back.values()] == [type(value) for value in values.values()]


def test_what_is_not_a_number_survives_json() -> None:
    back = partition_values(json.loads(json.dumps(to_json({"x": float("nan")}), allow_nan=False)))
    assert back["x"] != back["x"]


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="a bytes, which a partition key cannot be"):
        to_json({"x": b"1"})


def test_the_side_of_the_user_process_is_standard_library_alone() -> None:
    script = "import sys, mpi_prs.core.partition_values; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print('\\n'.join(sys.modules))"], capture_output=True, text=True, check=True
    )
    imported = {name.split(".")[0] for name in set(done.stdout.split()) - set(bare.stdout.split())}
    assert imported <= sys.stdlib_module_names | {"mpi_prs"}
