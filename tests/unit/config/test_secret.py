from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicad.config import Loaded, Secret, load
from replicad.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

KEY = "wJalrXUtnFEMIK7MDENGbPxRfiCY"
BASE = {
    "REPLICAD_DATABASE": "/data/app.db",
    "REPLICAD_REPLICA": "s3://bucket",
    "REPLICAD_S3_ACCESS_KEY_ID": "AKIDEXAMPLE",
}


def _loaded(environ: dict[str, str], **flags: str) -> Loaded:
    return load(flags=flags, environ=BASE | environ)


def _refusal(environ: dict[str, str], **flags: str) -> str:
    with pytest.raises(UsageError) as raised:
        _loaded(environ, **flags)
    return str(raised.value)


def test_a_secret_shows_nothing() -> None:
    """Whatever prints a secret prints ***; only reveal gives it."""
    secret = Secret(KEY)
    assert [str(secret), repr(secret), f"{secret}", f"{secret!r:>40}".strip(), f"{[secret]}"] == ["***"] * 4 + ["[***]"]
    assert secret.reveal() == KEY
    assert secret == Secret(KEY)
    assert secret != KEY


def test_credentials_are_never_shown() -> None:
    """Neither the settings nor their listing hold a credential in text.

    Seen to fail with the secrets' texts in `effective`.
    """
    found = _loaded({"REPLICAD_S3_SECRET_ACCESS_KEY": KEY, "REPLICAD_S3_SESSION_TOKEN": f"{KEY}token"})
    shown = repr(found.settings) + repr(found.effective())
    assert KEY not in shown
    assert "AKIDEXAMPLE" not in shown
    assert {one.name: one.value for one in found.effective()}["s3_secret_access_key"] == str(Secret(""))


def test_a_secret_from_a_file(tmp_path: Path) -> None:
    """A `_file` setting is read, without the newline that editors leave at its end."""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    found = _loaded({"REPLICAD_S3_SECRET_ACCESS_KEY_FILE": str(file)}).settings
    assert found.s3_secret_access_key == Secret(KEY)


def test_the_higher_source_wins_between_a_secret_and_its_file(tmp_path: Path) -> None:
    """A flag with a file beats a variable with the value; both in one source contradict."""
    file = tmp_path / "key"
    file.write_text("from the file")
    variable = {"REPLICAD_S3_SECRET_ACCESS_KEY": KEY}
    assert _loaded(variable, s3_secret_access_key_file=str(file)).settings.s3_secret_access_key == Secret(
        "from the file"
    )
    message = _refusal(variable | {"REPLICAD_S3_SECRET_ACCESS_KEY_FILE": str(file)})
    assert "either s3_secret_access_key or s3_secret_access_key_file" in message


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_secret_file_without_a_secret(tmp_path: Path, content: bytes) -> None:
    """An empty file, or one that is no text, is an error that names the file."""
    file = tmp_path / "key"
    file.write_bytes(content)
    assert str(file) in _refusal({"REPLICAD_S3_SECRET_ACCESS_KEY_FILE": str(file)})


def test_a_secret_file_that_is_missing(tmp_path: Path) -> None:
    """A missing file is an error that names it and the setting."""
    message = _refusal({"REPLICAD_S3_SECRET_ACCESS_KEY_FILE": str(tmp_path / "no")})
    assert "s3_secret_access_key_file (REPLICAD_S3_SECRET_ACCESS_KEY_FILE)" in message
    assert "No such file" in message


def test_half_a_credential() -> None:
    """A key without its secret, or a token without a key, is an error that names what is missing."""
    assert "s3_secret_access_key: expected a value" in _refusal({})
    with pytest.raises(UsageError, match="s3_access_key_id: expected a value"):
        load(flags={}, environ={"REPLICAD_S3_SECRET_ACCESS_KEY": KEY} | _without_key())
    with pytest.raises(UsageError, match="s3_session_token"):
        load(flags={}, environ={"REPLICAD_S3_SESSION_TOKEN": KEY} | _without_key())


@pytest.mark.parametrize(
    "url", [f"s3://id:{KEY}@bucket", f"s3://bucket?endpoint=https://id:{KEY}@host", f"s3://b?key={KEY}"]
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    """A replica URL with a credential in it is refused, and the message does not show it.

    Seen to fail with the URL quoted as what was found.
    """
    message = _refusal({"REPLICAD_S3_SECRET_ACCESS_KEY": "x", "REPLICAD_REPLICA": url})
    assert "replica (REPLICAD_REPLICA)" in message
    assert KEY not in message


def test_a_wrong_secret_is_not_quoted() -> None:
    """An error about a secret does not repeat its text."""
    assert KEY not in _refusal({"REPLICAD_S3_SECRET_ACCESS_KEY": f"{KEY}\0"})


def _without_key() -> dict[str, str]:
    return {key: text for key, text in BASE.items() if key != "REPLICAD_S3_ACCESS_KEY_ID"}
