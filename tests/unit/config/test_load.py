from __future__ import annotations

from pathlib import Path

import pytest

from replicad.config import Address, Settings, load
from replicad.errors import UsageError

BASE = {"REPLICAD_DATABASE": "/data/app.db", "REPLICAD_REPLICA": "file:///backup"}


def _settings(environ: dict[str, str] | None = None, **flags: str) -> Settings:
    return load(flags=flags, environ=BASE | (environ or {})).settings


def _refusal(environ: dict[str, str] | None = None, **flags: str) -> str:
    with pytest.raises(UsageError) as raised:
        load(flags=flags, environ=BASE | (environ or {}))
    return str(raised.value)


def _yaml(folder: Path, text: str) -> str:
    file = folder / "replicad.yml"
    file.write_text(text)
    return str(file)


def test_flags_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    """Each source wins over the ones below it, setting by setting."""
    file = _yaml(tmp_path, "sync_interval: 2s\nstop_timeout: 2s\nflush_timeout: 2s\n")
    environ = {"REPLICAD_STOP_TIMEOUT": "3s", "REPLICAD_FLUSH_TIMEOUT": "3s", "REPLICAD_CONFIG": file}
    found = _settings(environ, flush_timeout="4s")
    assert found.retry_timeout_seconds == 60
    assert found.sync_interval_seconds == 2
    assert found.stop_timeout_seconds == 3
    assert found.flush_timeout_seconds == 4


def test_the_origin_of_every_value_is_known(tmp_path: Path) -> None:
    """`effective` names the flag, the variable, the line of the file, or the default."""
    file = _yaml(tmp_path, "# a comment\nsync_interval: 2s\n")
    loaded = load(flags={"config": file, "wal": "keep"}, environ=BASE)
    origins = {one.name: (one.value, one.origin) for one in loaded.effective()}
    assert origins["wal"] == ("keep", "--wal")
    assert origins["database"] == ("/data/app.db", "REPLICAD_DATABASE")
    assert origins["sync_interval"] == ("2s", "replicad.yml:2")
    assert origins["stop_timeout"] == ("10s", "default")
    assert origins["name"] == ("app.db", "default")
    assert origins["control_socket"] == ("/data/app.db-replicad.sock", "default")


def test_a_yaml_value_is_its_text(tmp_path: Path) -> None:
    """`off` is not turned into False, nor a version-like number into a float, before the parser sees it."""
    file = _yaml(tmp_path, "http_listen: off\nname: 1.10\ncompression_level: -7\nbefore_start: 'yes'\n")
    found = _settings(config=file)
    assert found.http_listen is None
    assert found.databases[0].name == "1.10"
    assert found.compression_level == -7
    assert found.before_start == "yes"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sync_intervall: 2s\n", ["sync_intervall (replicad.yml:1)", "Did you mean sync_interval?"]),
        ("wal: keep\nzebra: 1\n", ["zebra (replicad.yml:2)", "docs/configuration.md"]),
        ("sync_interval:\n", ["sync_interval (replicad.yml:1)", "found nothing", "5s"]),
        ("sync_interval: ''\n", ["sync_interval (replicad.yml:1)", "found nothing"]),
        ("sync_interval: 2h\n", ["sync_interval (replicad.yml:1)", "from 0s to 1h", "'2h'"]),
        ("sync_interval: [1s]\n", ["sync_interval (replicad.yml:1)", "found a list"]),
        ("wal: keep\nwal: keep\n", ["wal (replicad.yml:2)", "each key once"]),
        ("config: other.yml\n", ["config (replicad.yml:1)"]),
        ("- wal\n", ["replicad.yml", "found a list"]),
        ("wal: [keep\n", ["replicad.yml:2", "expected YAML"]),
        ("wal: keep\n\tsync_interval: 1s\n", ["replicad.yml:2", "expected YAML"]),
    ],
)
def test_what_is_wrong_in_a_file(tmp_path: Path, text: str, parts: list[str]) -> None:
    """An error in the file names the key, the file and the line, what was expected and what was found."""
    message = _refusal(config=_yaml(tmp_path, text))
    assert [part for part in parts if part not in message] == []


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A configuration file that is missing, or no text, is an error that names the file and who asked for it."""
    missing = str(tmp_path / "no.yml")
    assert "config (REPLICAD_CONFIG)" in _refusal({"REPLICAD_CONFIG": missing})
    assert missing in _refusal({"REPLICAD_CONFIG": missing})
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00wal")
    assert "expected YAML" in _refusal({"REPLICAD_CONFIG": str(tmp_path / "binary.yml")})


def test_an_empty_file_is_no_settings(tmp_path: Path) -> None:
    """A file with nothing but comments changes nothing."""
    assert _settings(config=_yaml(tmp_path, "# nothing\n")) == _settings()


def test_an_unknown_variable_is_an_error() -> None:
    """A REPLICAD_ variable that is no setting is refused, with the nearest that is."""
    message = _refusal({"REPLICAD_SYNC_INTERVALL": "1s"})
    assert "REPLICAD_SYNC_INTERVALL" in message
    assert "Did you mean REPLICAD_SYNC_INTERVAL?" in message


@pytest.mark.parametrize(
    "name",
    [
        "REPLICAD_SOAK",
        "REPLICAD_SEED",
        "REPLICAD_WRITE_GOLDEN",
        "REPLICAD_SERVICE_HOST",
        "REPLICAD_SERVICE_PORT_HTTP",
        "REPLICAD_PORT",
        "REPLICAD_PORT_9090_TCP_ADDR",
        "REPLICAD_METRICS_SERVICE_HOST",
        "REPLICAD_METRICS_PORT_9090_TCP",
        "_REPLICAD_COMPLETE",
        "AWS_ACCESS_KEY_ID",
    ],
)
def test_variables_that_others_set_are_left_alone(name: str) -> None:
    """Variables that Kubernetes makes for a service of that name, and other programs', are no errors.

    Seen to fail without the service link pattern: a service called "replicad" stopped every daemon of its namespace.
    """
    assert _settings({name: "tcp://10.0.0.1:9090"}) == _settings()


def test_an_empty_variable_is_not_set() -> None:
    """An empty variable, as compose files leave them, gives way to the source below it."""
    assert _settings({"REPLICAD_SYNC_INTERVAL": ""}).sync_interval_seconds == 1


@pytest.mark.parametrize(("name", "variable"), [("database", "REPLICAD_DATABASE"), ("replica", "REPLICAD_REPLICA")])
def test_a_missing_setting(name: str, variable: str) -> None:
    """What has no default and is not given is named, with all the ways to give it and an example."""
    with pytest.raises(UsageError) as raised:
        load(flags={}, environ={key: text for key, text in BASE.items() if key != variable})
    message = str(raised.value)
    assert message.startswith(f"{name}: expected a value, found nothing.")
    assert variable in message
    assert f"--{name}" in message


def test_nothing_is_required_of_a_command_that_needs_nothing() -> None:
    """A command that talks to a socket alone loads its settings without a database or a replica."""
    found = load(flags={"control_socket": "/run/r.sock"}, environ={}, required=("control_socket",)).settings
    assert found.databases == ()
    assert found.control_socket == Path("/run/r.sock")
    with pytest.raises(UsageError, match=r"^control_socket: expected a value, found nothing"):
        load(flags={}, environ={}, required=("control_socket",))


def test_limits_that_contradict_each_other() -> None:
    """A WAL limit below the size at which room is made at all is refused, and the message names both."""
    message = _refusal(max_wal_bytes="1MiB")
    assert "max_wal_bytes (--max-wal-bytes)" in message
    assert "checkpoint_wal_bytes (16MiB)" in message


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("off", None),
        ("OFF", None),
        ("127.0.0.1:9090", Address("127.0.0.1", 9090)),
        ("[::1]:0", Address("::1", 0)),
        ("metrics.internal:80", Address("metrics.internal", 80)),
    ],
)
def test_addresses(text: str, address: Address | None) -> None:
    """An address is a host and a port, or off."""
    assert _settings(http_listen=text).http_listen == address


@pytest.mark.parametrize("text", [":9090", "9090", "host:", "host:65536", "a:b:1", "http://host:1", ""])
def test_what_is_no_address(text: str) -> None:
    """A port alone, a port out of range and a URL are refused: what would be listened on must be said."""
    if text:
        assert "http_listen (--http-listen): expected host:port, or off" in _refusal(http_listen=text)


def test_paths_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative path starts at the working directory, ~ at home; symbolic links stay as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert _settings(ready_file="ready").ready_file == tmp_path / "ready"
    assert _settings(ready_file="~/ready").ready_file == Path("/home/somebody/ready")
    (tmp_path / "link").symlink_to(tmp_path)
    assert _settings(ready_file="link/ready").ready_file == tmp_path / "link" / "ready"


def test_store_options_take_the_settings_over() -> None:
    """Timeouts and credentials reach the store's options."""
    environ = {"REPLICAD_S3_ACCESS_KEY_ID": "the id", "REPLICAD_S3_SECRET_ACCESS_KEY": "the key"}
    options = _settings(environ, connect_timeout="2s", request_timeout="3s", retry_timeout="4s").store_options(
        concurrency=7
    )
    assert (options.connect_timeout_seconds, options.read_timeout_seconds, options.retry_seconds) == (2, 3, 4)
    assert (options.access_key_id, options.secret_access_key, options.session_token) == ("the id", "the key", None)
    assert options.concurrency == 7
