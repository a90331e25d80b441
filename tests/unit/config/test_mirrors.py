from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicad.config import MirrorSettings, Settings, load
from replicad.config.mirrors import check_places
from replicad.errors import UsageError
from replicad.store.options import StoreOptions

if TYPE_CHECKING:
    from pathlib import Path

BASE = {"REPLICAD_DATABASE": "/data/app.db", "REPLICAD_REPLICA": "s3://first/app"}


def settings(mirrors: str, **environ: str) -> Settings:
    """Return the settings with these mirrors."""
    return load(flags={}, environ={**BASE, "REPLICAD_MIRRORS": mirrors, **environ}).settings


def refusal(mirrors: str, **environ: str) -> str:
    """Return why these mirrors are refused."""
    with pytest.raises(UsageError) as raised:
        settings(mirrors, **environ)
    return str(raised.value)


def test_a_mirror_is_a_url_or_more(tmp_path: Path) -> None:
    """One URL, a list of them, and mappings with keys from files and variables are read from every source."""
    assert settings("file:///second").mirrors == (MirrorSettings(url="file:///second"),)
    key, secret = tmp_path / "key", tmp_path / "secret"
    key.write_text("the id\n")
    secret.write_text("the secret\n")
    file = tmp_path / "replicad.yml"
    file.write_text(
        "mirrors:\n"
        "  - file:///second\n"
        f"  - {{replica: 's3://third/app', s3_access_key_id_file: {key}, s3_secret_access_key_file: {secret}}}\n"
        "  - replica: s3://fourth/app?region=auto\n"
        "    s3_access_key_id_variable: FOURTH_ID\n"
        "    s3_secret_access_key_variable: FOURTH_SECRET\n"
        "    s3_session_token_variable: FOURTH_TOKEN\n"
    )
    environ = {**BASE, "FOURTH_ID": "i", "FOURTH_SECRET": "s", "FOURTH_TOKEN": "t"}
    loaded = load(flags={"config": str(file)}, environ=environ)
    second, third, fourth = loaded.settings.mirrors
    options = StoreOptions(access_key_id="main", secret_access_key="main", session_token="main")  # noqa: S106
    assert second.store_options(options) is options
    own = third.store_options(options)
    assert (own.access_key_id, own.secret_access_key, own.session_token) == ("the id", "the secret", None)
    assert fourth.store_options(options).session_token == environ["FOURTH_TOKEN"]
    shown = {one.name: one.value for one in loaded.effective()}["mirrors"]
    assert shown == "file:///second, s3://third/app, s3://fourth/app?region=auto"
    assert {secret.reveal() for secret in loaded.settings.secrets} == {"the id", "the secret", "i", "s", "t"}
    assert "the secret" not in repr(loaded.settings)


@pytest.mark.parametrize(
    ("mirrors", "said"),
    [
        ("[ftp://there]", "mirrors[0]"),
        ("{a: b}", "a list of replica URLs"),
        ("[file:///a, file:///a]", "each place once"),
        ("[{url: file:///a}]", "url"),
        (
            "[{replica: 's3://bucket/b', s3_access_key_id_variable: NOT_SET, s3_secret_access_key_variable: NOT_SET}]",
            "is not",
        ),
        ("[{replica: 's3://bucket/b', s3_access_key_id_variable: SET}]", "both or none"),
        (
            "[{replica: 's3://bucket/b', s3_access_key_id_variable: SET, s3_access_key_id_file: /x}]",
            "a file or a variable",
        ),
        (
            "[{replica: 's3://bucket/b', s3_access_key_id_file: /nowhere, s3_secret_access_key_file: /nowhere}]",
            "No such file",
        ),
        ("[s3://id:hidden@bucket/app]", "without credentials"),
        ("['unended", "a list of replica URLs"),
    ],
)
def test_what_is_no_mirror_is_refused(mirrors: str, said: str) -> None:
    """The message names the setting and what is wrong, and repeats no secret."""
    message = refusal(mirrors, SET="hidden")
    assert "mirrors" in message
    assert said in message
    assert "hidden" not in message


def test_a_daemon_needs_another_place_for_its_mirror() -> None:
    """The replica itself is refused, and so are two databases of one name; a restore from a mirror is neither."""
    found = settings("s3://first/app")
    with pytest.raises(UsageError, match="other places than `replica`"):
        check_places(found.mirrors, found.databases)
    file = "[{path: /a/app.db}, {path: /b/app.db, replica: 's3://other/app'}]"
    environ = {"REPLICAD_DATABASES": file, "REPLICAD_REPLICA": "s3://first/app", "REPLICAD_MIRRORS": "file:///m"}
    found = load(flags={}, environ=environ).settings
    with pytest.raises(UsageError, match="a name of its own for each database"):
        check_places(found.mirrors, found.databases)
    check_places((), found.databases)
