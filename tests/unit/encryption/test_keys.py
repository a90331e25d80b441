from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.encryption.keys import MAX_KEYS, EncryptionKey, format_key, parse_keys
from replicad.errors import UsageError
from tests.support import sealed

SECRET = bytes(range(32))
TEXT = format_key(SECRET)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=4, unique=True), st.sampled_from(" \n,\t"))
def test_keys_survive_being_written_down(secrets: list[bytes], between: str) -> None:
    """What a text says is the secret it was made of, in capitals too; several keep their order."""
    texts = [format_key(secret) for secret in secrets]
    assert [key.reveal() for key in parse_keys(between.join(texts))] == secrets
    assert [key.reveal() for key in parse_keys("\n".join(texts).upper() + "\n")] == secrets
    assert [sealed.secret_of(text) for text in texts] == secrets


@pytest.mark.parametrize("at", range(len(TEXT)))
def test_every_typing_error_is_found(at: int) -> None:
    """No single wrong, missing, doubled or swapped character makes another key, and no message repeats the text.

    Seen to fail with the checksum left out.
    """
    other = "a" if TEXT[at] != "a" else "b"
    wrong = [TEXT[:at] + other + TEXT[at + 1 :], TEXT[:at] + TEXT[at + 1 :], TEXT[: at + 1] + TEXT[at:]]
    swapped = TEXT[:at] + TEXT[at : at + 2][::-1] + TEXT[at + 2 :]
    for text in [*wrong, *([swapped] if swapped != TEXT else [])]:
        with pytest.raises(UsageError) as raised:
            parse_keys(text)
        assert text[20:40] not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1 to 16 keys"),
        (" , ", "1 to 16 keys"),
        ("hunter2", "begins with replicad-key-1-"),
        (f"{TEXT} {TEXT}", "each key once"),
        (" ".join(format_key(bytes([number]) * 32) for number in range(MAX_KEYS + 1)), "1 to 16 keys"),
    ],
)
def test_what_is_no_key(text: str, expected: str) -> None:
    """What is none, one too many or one twice is an error that names the setting."""
    with pytest.raises(UsageError, match=expected) as raised:
        parse_keys(text, where="encryption_key (REPLICAD_ENCRYPTION_KEY)")
    assert "REPLICAD_ENCRYPTION_KEY" in str(raised.value)


def test_a_key_shows_its_id_only() -> None:
    """Whatever prints a key shows the id, which another reader computes too and which differs from key to key."""
    key = EncryptionKey(SECRET)
    assert repr(key) == f"{key}" == f"EncryptionKey({sealed.key_id(SECRET).hex()})"
    assert TEXT[15:] not in repr(key)
    assert key == EncryptionKey(SECRET)
    assert key != EncryptionKey(bytes(32))
    assert key.id != EncryptionKey(bytes(32)).id
    with pytest.raises(ValueError, match="32 bytes"):
        EncryptionKey(bytes(16))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRAP: without the package a key is an error that says what to install; nothing goes on without encryption.

    Seen to fail with the ImportError swallowed and no keys returned.
    """
    importing = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:  # noqa: ANN401 - the signature of __import__
        if name.startswith("cryptography"):
            raise ModuleNotFoundError(name)
        return importing(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "replicad.encryption.sealing", raising=False)
    monkeypatch.delattr("replicad.encryption.sealing", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match=r"pip install 'replicad\[encryption\]'"):
        parse_keys(TEXT)
