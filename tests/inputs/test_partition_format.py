"""Partition keys from paths: formats such as {user}/{season}/{genres}.wav, and folders named key=value."""

from __future__ import annotations

import os
import re
from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.partition_format import HIVE_NULL, HiveFolders, PartitionFormat, hive_values


@pytest.mark.parametrize(
    ("text", "path", "values"),
    [
        (
            "{user}/{season}/{genres}.wav",
            "/data/music/jane/winter/disco.wav",
            {"user": "jane", "season": "winter", "genres": "disco"},
        ),
        (
            "dataset_partition_test/{user}/{season}/{genres}.wav",
            "/mnt/dataset_partition_test/user1/fall/orchestra.wav",
            {"user": "user1", "season": "fall", "genres": "orchestra"},
        ),
        (
            "/{Department}/{PartitionDate:yyyy/MM/dd}/data.jsonl",
            "../Accounts/2019/01/01/data.jsonl",
            {"Department": "Accounts", "PartitionDate": datetime(2019, 1, 1)},
        ),
        (
            "/{company}/{date:yyyy/MM}/data.csv",
            "/x/Contoso/2020/08/data.csv",
            {"company": "Contoso", "date": datetime(2020, 8, 1)},
        ),
        (
            "{at:yyyy/MM/dd/HH/mm/ss}/*",
            "/x/2020/08/31/23/59/58/y",
            {"at": datetime(2020, 8, 31, 23, 59, 58)},
        ),
        ("{at:yyyyMMddHHmmss}*/{n}.x", "20200831235958+0/7.x", {"at": datetime(2020, 8, 31, 23, 59, 58), "n": "7"}),
        ("{d:yyyy/yyyy-MM}/a", "2020/2020-08/a", {"d": datetime(2020, 8, 1)}),
        ("{a:yyyy}-{b:yyyy}", "/x/2020-1999", {"a": datetime(2020, 1, 1), "b": datetime(1999, 1, 1)}),
        ("{key}{d:yyyyMM}.csv", "/x/sales202008.csv", {"key": "sales", "d": datetime(2020, 8, 1)}),
        ("{file_name}.{extension}", "/x/a.tar.gz", {"file_name": "a.tar", "extension": "gz"}),
        ("{mail}/part-*.csv", "/x/jane.doe@example.com/part-.csv", {"mail": "jane.doe@example.com"}),
        ("{{{a}}}/x(1)+.csv", "/q/{7}/x(1)+.csv", {"a": "7"}),
        ("{a b:c}".replace("b:c", "b"), "/q/ü\n", {"a b": "ü\n"}),
        ("{user}.wav", b"/data/\xff\xfe.wav", {"user": os.fsdecode(b"\xff\xfe")}),
    ],
)
def test_a_format_gives_the_values_of_a_path(text: str, path: str | bytes, values: dict[str, Any]) -> None:
    format = PartitionFormat.parse(text)
    assert format.values(path) == values
    assert format.keys == tuple(values)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{user}/{season}.wav", "/a/b.mp3"),
        ("{user}/{season}.wav", "b.wav"),
        ("{user}/{season}.wav", "/a/b.wav/c"),
        ("{user}/{season}.wav", "/a/b.wav.gz"),
        ("{user}/{season}.wav", "/a/.wav"),
        ("{user}.wav", "/a/b.wav\n"),
        ("music/{user}.wav", "/classical-music/jane.wav"),
        ("{user}/xwav", "/jane/.wav"),
        ("{d:yyyy/MM}/a", "/2020/13/a"),
        ("{d:yyyy/MM/dd}/a", "/2021/02/29/a"),
        ("{d:yyyy/MM}/a", "/2020/8/a"),
        ("{d:yyyy/MM}/a", "/٢٠٢٠/08/a"),
        ("{d:yyyy/yyyy-MM}/a", "/2019/2020-08/a"),
    ],
)
def test_a_path_of_another_form_has_no_values(text: str, path: str) -> None:
    assert PartitionFormat.parse(text).values(path) is None


def test_no_key_takes_the_name_of_a_folder_above_the_dataset() -> None:
    format = PartitionFormat.parse("{user}/{season}.wav")
    assert format.values("/data/music/jane/fall.wav", "/data/music") == {"user": "jane", "season": "fall"}
    assert format.values("/data/music/stray.wav", "/data/music/") is None
    assert format.values("/data/music/stray.wav", b"/data") == {"user": "music", "season": "stray"}
    spelled_out = PartitionFormat.parse("music/{user}/{season}.wav")
    assert spelled_out.values("/data/music/jane/fall.wav", "/data/music") == {"user": "jane", "season": "fall"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "separated by one slash"),
        ("/", "separated by one slash"),
        ("{user}/", "the last one that of the file"),
        ("{user}//{season}", "one slash each"),
        ("data/*.csv", "no keys"),
        ("{user", "brace without its partner"),
        ("user}", "brace without its partner"),
        ("{us{er}}", "brace without its partner"),
        ("{}", "expected a name"),
        ("{:yyyy}", "expected a name"),
        ("{a}/{a}", "has the key 'a' twice"),
        ("{a}/{a:yyyy}", "has the key 'a' twice"),
        ("{a}{b}", "nothing between {a} and {b}"),
        ("{a}*", "nothing between {a} and *"),
        ("x**{a}", "nothing between * and *"),
        ("{d:yyyy/mmm}", "the letter 'm' in the date 'd'"),
        ("{d:YYYY}", "the letter 'Y'"),
        ("{d:MM/dd}", "without its year"),
        ("{d:}", "without its year"),
    ],
)
def test_a_bad_format_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        PartitionFormat.parse(text)
    assert repr(text) in str(raised.value)


def test_a_file_that_does_not_match_is_named_with_the_format() -> None:
    format = PartitionFormat.parse("{user}/{d:yyyy}.wav")
    with pytest.raises(InputError) as raised:
        format.required_values(b"/data/\xff/stray.wav", b"/data")
    message = str(raised.value)
    assert "/data/\\xff/stray.wav" in message
    assert "{user}/{d:yyyy}.wav" in message
    assert "Leave the file out" in message
    assert format.required_values("/data/u/2020.wav") == {"user": "u", "d": datetime(2020, 1, 1)}


names = st.text(st.characters(blacklist_characters="/\0-_", blacklist_categories=("Cs",)), min_size=1, max_size=8)


@settings(max_examples=150)
@given(st.data())
def test_values_put_into_a_format_come_out_again(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5))
    values = {f"key{number}": data.draw(names) for number in range(count)}
    pieces = ["{key0}"] + [
        data.draw(st.sampled_from(["/", "-", "/x_", "_/*-"])) + f"{{key{number}}}" for number in range(1, count)
    ]
    text = (
        data.draw(st.sampled_from(["", "/", "folder/"])) + "".join(pieces) + data.draw(st.sampled_from(["", "_.wav"]))
    )
    path = text.lstrip("/").replace("*", data.draw(names))
    for key, value in values.items():
        path = path.replace(f"{{{key}}}", value.replace("{", "").replace("}", "") or "x")
    expected = {key: value.replace("{", "").replace("}", "") or "x" for key, value in values.items()}
    assert PartitionFormat.parse(text).values(f"/base/{path}") == expected


def azure_values(text: str, path: str) -> dict[str, str] | None:
    """Azure's rule as it is documented: values without dots and slashes, up to the end of the path."""
    expression = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^./\\\\]+)", re.escape(text))
    match = re.search(rf"(?:^|/){expression}\Z", path)
    return match.groupdict() if match else None


@settings(max_examples=150)
@given(
    st.sampled_from(["{a}/{b}.{c}", "{a}-{b}.csv", "d/{a}/{b}", "{a}.{b}-{c}", "{a}", "x{a}-{b}/{c}.x"]),
    st.text("axd.-/", min_size=1, max_size=14),
)
def test_what_fits_by_the_rules_of_azure_has_the_same_values(text: str, path: str) -> None:
    expected = azure_values(text, path)
    if expected is not None:
        assert PartitionFormat.parse(text).values(path) == expected


# Folders named key=value


def test_hive_folders_give_decoded_values() -> None:
    path = f"/data/other=1/sales/store=01/brand=a%2Fb%20%C3%BC/year={HIVE_NULL}/empty=/plain/x=y.parquet"
    assert hive_values(path, "/data/other=1/sales/") == {"store": "01", "brand": "a/b ü", "year": None, "empty": ""}


def test_hive_folders_with_one_key_twice_are_refused() -> None:
    with pytest.raises(InputError, match=r"/d/a=1/a=2/f has two folders for the partition key 'a'"):
        hive_values("/d/a=1/a=2/f", "/d")


@pytest.mark.parametrize("other", ["/d/b=1/a=2/f", "/d/a=1/f", "/d/a=1/b=2/c=3/f", "/d/a=1/c=2/f"])
def test_hive_folders_of_different_keys_are_refused_with_both_files(other: str) -> None:
    folders = HiveFolders("/d")
    assert folders.values("/d/a=1/b=2/f") == {"a": "1", "b": "2"}
    assert folders.values("/d/a=1/b=2/g") == {"a": "1", "b": "2"}
    assert folders.values(b"/d/a=1/b=3/g") == {"a": "1", "b": "3"}
    assert folders.keys == ("a", "b")
    with pytest.raises(InputError) as raised:
        folders.values(other)
    assert "/d/a=1/b=2/f" in str(raised.value)
    assert other in str(raised.value)


def test_a_file_outside_of_all_hive_folders_is_refused() -> None:
    with pytest.raises(InputError, match=r"/d/f has no folder named key=value"):
        HiveFolders("/d").values("/d/f")


@settings(max_examples=100)
@given(st.dictionaries(st.text("abcü ", min_size=1), st.none() | st.text(max_size=10), min_size=1, max_size=4))
def test_values_put_into_hive_folders_come_out_again(values: dict[str, str | None]) -> None:
    folders = "/".join(
        f"{key}={HIVE_NULL if value is None else quote(value, safe='')}" for key, value in values.items()
    )
    found = hive_values(f"/base/{folders}/part-0.parquet", "/base")
    assert found == values
    assert list(found) == list(values)
