from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.observe.scrub import Scrubber

KEY = "wJalrXUtnFEMI/K7MDENG"


@pytest.mark.parametrize(
    "text",
    [
        f"https://bucket/key?X-Amz-Signature={KEY}&X-Amz-Date=1",
        f"https://bucket/key?X-Amz-Credential={KEY}&x=1",
        f"GET /?AWSAccessKeyId=a&Signature={KEY}",
        f"{{'Authorization': 'AWS4-HMAC-SHA256 Credential={KEY}, Signature=1'}}",
        f"Authorization: AWS4-HMAC-SHA256 Credential={KEY}/20260101",
        f"{{'X-Amz-Security-Token': b'{KEY}'}}",
        f"StoreOptions(secret_access_key='{KEY}')",
        f'{{"session_token": "{KEY}"}}',
        f"http://user:{KEY.replace('/', '')}@host/path",
    ],
)
def test_known_shapes_of_credentials(text: str) -> None:
    """What libraries put into messages is found without knowing the secret."""
    scrubbed = Scrubber().text(text)
    assert KEY not in scrubbed
    assert KEY.replace("/", "") not in scrubbed
    assert "***" in scrubbed


def test_known_secrets_anywhere() -> None:
    """A known secret is taken out of any text, the longer one first."""
    scrubber = Scrubber(["secret-1", "secret-1-and-more", "abc"])
    assert scrubber.text("x secret-1-and-more y secret-1 abc") == "x *** y *** abc"


def test_values_inside_values() -> None:
    """Texts in mappings and sequences are scrubbed, other values stay, unknown kinds become text."""
    scrubber = Scrubber(["hunter22"])
    value = {"a": ["hunter22", 1, None, True, 1.5], "b": {"c": ("x hunter22",)}, "d": ValueError("hunter22")}
    assert scrubber.value(value) == {"a": ["***", 1, None, True, 1.5], "b": {"c": ["x ***"]}, "d": "***"}


@given(st.text())
def test_harmless_text_stays(text: str) -> None:
    """Text with nothing like a credential in it is not changed."""
    if not any(mark in text.lower() for mark in ("=", ":", "token", "signature")):
        assert Scrubber(["a secret of somebody"]).text(text) == text
