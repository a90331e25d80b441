from __future__ import annotations

from datetime import UTC, datetime

from replicad.store.s3_signature import Credentials, query_string, signed_headers

EXAMPLE = Credentials(
    access_key_id="AKIAIOSFODNN7EXAMPLE",
    secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # noqa: S106 - of Amazon's documentation
)


def test_the_example_of_the_documentation() -> None:
    """A listing is signed as in the example of S3's documentation of Signature Version 4."""
    headers = signed_headers(
        EXAMPLE,
        region="us-east-1",
        host="examplebucket.s3.amazonaws.com",
        path="/",
        query=query_string({"prefix": "J", "max-keys": "2"}),
        now=datetime(2013, 5, 24, tzinfo=UTC),
    )
    assert headers["authorization"].endswith(
        "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    )


def test_secrets_stay_out_of_sight() -> None:
    """Neither key nor token is in the representation; a token is sent and signed."""
    credentials = Credentials(access_key_id="who", secret_access_key="hidden", session_token="ticket")  # noqa: S106 - none
    assert repr(credentials) == "Credentials()"
    headers = signed_headers(
        credentials, region="r", host="h", path="/", query="", now=datetime(2013, 5, 24, tzinfo=UTC)
    )
    assert headers["x-amz-security-token"] == "ticket"
    assert "x-amz-date;x-amz-security-token" in headers["authorization"]
    assert query_string({"b": "a/ü", "a": "1 2"}) == "a=1%202&b=a%2F%C3%BC"
