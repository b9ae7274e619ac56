"""What looks secret by its name or by its value is neither shown nor stored."""

from __future__ import annotations

import pytest

from mpi_prs.core.secrecy import digest, holds_secret, is_digest, looks_secret, scrub, seal, seal_arguments

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJISURFIn0.HIDE-HIDE_HIDE"
SECRET = [
    "https://a.blob.core.windows.net/c/b?sv=1&sig=HIDE&x=1",
    "sv=1&sig=HIDE",
    "sig=HIDE",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=HIDE;EndpointSuffix=x",
    "Endpoint=sb://x;SharedAccessKeyName=n;SharedAccessKey=HIDE",
    "SharedAccessSignature=sv=1&sig=HIDE",
    "Server=db;User=me;Password=HIDE;Encrypt=yes",
    "ftp://user:HIDE@host/x",
    "redis://:HIDE@host",
    "https://b.s3.amazonaws.com/x?X-Amz-Signature=HIDE",
    '{"user": "me", "password": "HIDE"}',
    "Authorization: Bearer HIDE-HIDE.HIDE",
    f"got {JWT} from there",
    "hf_HIDEHIDEHIDEHIDEHIDE",
    "sk-HIDE0HIDEHIDEHIDEHIDEHIDE",
    "sk-proj-HIDE_HIDE-HIDEHIDEHIDE",
    "-----BEGIN PRIVATE KEY-----\nHIDE\nHIDE\n-----END PRIVATE KEY-----",
]
PLAIN = [
    "data/sig=3/file.csv",
    "design=blue",
    "https://host:8080/a@b",
    "load(token=token, password=password)",
    "s3://bucket/key",
    "model@sha256:" + "0123456789abcdef" * 4,
    "10:30 user@host",
    "risk-assessment-of-many-things",
    "abfs://data/sk-SK-common-voice-17/clip.wav",
    "abfs://data/hf_models_of_2024_and_before/x",
    "abfs://data/AccountKey=17/part.parquet",
    "data/Password=x/part.parquet",
]


@pytest.mark.parametrize("text", SECRET)
def test_what_looks_secret_is_scrubbed_and_sealed(text: str) -> None:
    sealed = seal(text)

    assert holds_secret(text)
    assert "HIDE" not in scrub(text)
    assert "HIDE" not in sealed
    assert seal(sealed) == sealed, "it stays as it is"
    assert seal(text.replace("HIDE", "SEEK").replace("eyJz", "eyJt")) != sealed, "a change is noticed"
    assert "sha256:" not in scrub(sealed)
    assert not holds_secret(scrub(text))


@pytest.mark.parametrize("text", PLAIN)
def test_what_only_reminds_of_a_secret_is_left(text: str) -> None:
    assert (scrub(text), seal(text), holds_secret(text)) == (text, text, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--token", "HIDE"],
        ["--token=HIDE"],
        ["db.password=HIDE"],
        ["--bearer", "HIDE"],
        ["--url", "https://x/y?sig=HIDE"],
        ["--dsn=postgres://user:HIDE@host/db"],
    ],
)
def test_arguments_are_sealed_by_name_and_by_value(arguments: list[str]) -> None:
    sealed = list(seal_arguments(arguments))

    assert "HIDE" not in str(sealed)
    assert list(seal_arguments(sealed)) == sealed
    assert sealed[0].partition("=")[0] == arguments[0].partition("=")[0]


def test_a_digest_is_its_own_digest() -> None:
    assert is_digest(digest("x"))
    assert digest(digest("x")) == digest("x") != digest("y")
    assert looks_secret("HF_TOKEN")
    assert not looks_secret("MODEL")
