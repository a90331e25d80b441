from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import UsageError
from replicad.store.url import DirectoryLocation, MemoryLocation, S3Location, join_url, parse_url, without_secrets

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"  # noqa: S105 - AWS's own example


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket", S3Location(bucket="bucket")),
        ("s3://bucket/", S3Location(bucket="bucket")),
        ("s3://bucket/a/b/", S3Location(bucket="bucket", prefix="a/b")),
        ("s3://bucket/my%20app%3F", S3Location(bucket="bucket", prefix="my app?")),
        ("s3://my.bucket_1/p?region=auto", S3Location(bucket="my.bucket_1", prefix="p", region="auto")),
        (
            "s3://b2b/p?endpoint=http://127.0.0.1:9000/&path_style=true",
            S3Location(bucket="b2b", prefix="p", endpoint="http://127.0.0.1:9000", path_style=True),
        ),
        (
            "s3://b2b?endpoint=https%3A%2F%2Fx.example%2Fstorage%2Fs3&path_style=false",
            S3Location(bucket="b2b", endpoint="https://x.example/storage/s3", path_style=False),
        ),
        (
            "s3://b2b?endpoint=https://storage.googleapis.com&region=auto&creates=if-none-match",
            S3Location(bucket="b2b", endpoint="https://storage.googleapis.com", region="auto", creates="if-none-match"),
        ),
        ("file:///var/backup", DirectoryLocation(root=Path("/var/backup"))),
        ("file://localhost/var/my%20backup/", DirectoryLocation(root=Path("/var/my backup"))),
        ("memory://name", MemoryLocation(name="name")),
    ],
)
def test_good_urls(url: str, expected: object) -> None:
    """Each documented form is understood, and what it prints is understood as the same."""
    assert parse_url(url) == expected
    assert parse_url(str(parse_url(url))) == expected
    assert without_secrets(url)


@pytest.mark.parametrize(
    ("query", "by_generation"),
    [
        ("", False),
        ("?endpoint=https://s3.example.com", False),
        ("?endpoint=https://storage.googleapis.com", True),
        ("?endpoint=https://STORAGE.googleapis.com:443/", True),
        ("?endpoint=https://bucket.storage.googleapis.com", True),
        ("?endpoint=https://notstorage.googleapis.com", False),
        ("?endpoint=https://storage.googleapis.com&creates=if-none-match", False),
        ("?endpoint=https://proxy.example.com&creates=generation-match", True),
    ],
)
def test_how_a_create_is_told(query: str, *, by_generation: bool) -> None:
    """Google's endpoint is known by its name; one behind another name is named by `creates`, which always wins."""
    location = parse_url(f"s3://bucket/p{query}")
    assert isinstance(location, S3Location)
    assert location.creates_by_generation is by_generation


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "no scheme"),
        ("/var/backup", "no scheme"),
        ("bucket/prefix", "no scheme"),
        ("gs://bucket", "the scheme 'gs'"),
        ("s3://", "no bucket"),
        ("s3:///prefix", "no bucket"),
        ("s3://b", "the bucket 'b'"),
        ("s3://buck et/p", "the bucket"),
        ("s3://bucket:9000/p", "the bucket"),
        ("s3://bucket/a/../b", "'a/../b'"),
        ("s3://bucket/%2E%2E/b", "'../b'"),
        ("s3://bucket/a//b", "empty"),
        ("s3://bucket/./b", "'.'"),
        ("s3://bucket/a%0Ab", "control character"),
        ("s3://bucket/a#b", "'#'"),
        ("s3://bucket/a?creates=always", "'always'"),
        ("s3://bucket?endpont=https://x", "the key 'endpont'"),
        ("s3://bucket?region=a&region=b", "'region' twice"),
        ("s3://bucket?region=", "'region' without"),
        ("s3://bucket?region", "'region' without"),
        ("s3://bucket?region=a b", "'a b'"),
        ("s3://bucket?path_style=yes", "'yes'"),
        ("s3://bucket?endpoint=s3.example.com", "without https://"),
        ("s3://bucket?endpoint=ftp://s3.example.com", "'ftp://s3.example.com'"),
        ("s3://bucket?endpoint=http://", "'http://'"),
        ("s3://bucket?endpoint=http://host:port", "no URL"),
        ("s3://bucket?endpoint=http://[::1", "no URL"),
        ("s3://bucket?endpoint=http://x?y=1", "a query"),
        ("file://relative/folder", "three slashes"),
        ("file:folder", "the path 'folder'"),
        ("file:///", "the path '/'"),
        ("file:///./", "the path '/./'"),
        ("file:///a/../b", "without '..'"),
        ("file:///a?x=1", "a '?'"),
        ("memory://", "memory://"),
        ("memory://a/b", "memory://"),
        ("http://[", "no URL"),
    ],
)
def test_bad_urls(url: str, complaint: str) -> None:
    """Every other URL is a UsageError (exit 64) that says where, what was expected and what was found."""
    with pytest.raises(UsageError) as caught:
        parse_url(url, where="databases[0].replica")
    assert str(caught.value).startswith("databases[0].replica: expected ")
    assert complaint in str(caught.value)
    assert caught.value.exit_code == 64


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIA:{SECRET}@bucket/prefix",
        f"s3://{SECRET}@bucket",
        f"s3://bucket?endpoint=https://user:{SECRET}@host",
        f"s3://bucket?secret_access_key={SECRET}",
        f"s3://bucket?{SECRET}=x",
        f"s3://bucket?{SECRET}",
        f"file://{SECRET}@host/path",
        f"https://user:{SECRET}@host/",
        f"s3://user:{SECRET}@[broken/",
    ],
)
def test_trap_secrets_in_urls_are_refused_and_not_repeated(url: str) -> None:
    """A URL with credentials is refused, and neither the message nor `without_secrets` repeats them.

    Seen to fail: with the whole URL quoted as what was found.
    """
    with pytest.raises(UsageError) as caught:
        parse_url(url)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__context__)
    assert SECRET not in without_secrets(url)


def test_without_secrets_keeps_the_rest() -> None:
    """What is no secret stays readable."""
    url = "s3://bucket/p?endpoint=http://u:p@h:1&region=auto&x=y"
    assert without_secrets(url) == "s3://bucket/p?endpoint=http://***@h:1&region=auto&***"
    assert without_secrets("s3://bucket/p?region=auto") == "s3://bucket/p?region=auto"


@given(st.text())
def test_any_text(text: str) -> None:
    """Any text is either a location or a UsageError, and can be shown without secrets."""
    assert isinstance(without_secrets(text), str)
    for url in (text, f"s3://bucket/{text}", f"file:///{text}"):
        try:
            location = parse_url(url)
        except UsageError:
            continue
        assert parse_url(str(location)) == location


def test_join() -> None:
    """A prefix goes into the path of the URL, before its query."""
    assert join_url("s3://b?endpoint=http://x", "a b/c/") == "s3://b/a%20b/c?endpoint=http://x"
    assert join_url("memory://m", "app.db/") == "memory://m/app.db"
