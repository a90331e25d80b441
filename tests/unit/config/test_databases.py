from __future__ import annotations

from pathlib import Path

import pytest

from replicad.config import DatabaseSettings, load
from replicad.errors import UsageError


def _databases(environ: dict[str, str] | None = None, **flags: str) -> tuple[DatabaseSettings, ...]:
    return load(flags=flags, environ=environ or {}).settings.databases


def _refusal(environ: dict[str, str] | None = None, **flags: str) -> str:
    with pytest.raises(UsageError) as raised:
        load(flags=flags, environ=environ or {})
    return str(raised.value)


@pytest.fixture
def listed(tmp_path: Path) -> str:
    """A file with three databases."""
    file = tmp_path / "replicad.yml"
    file.write_text(
        "replica: s3://bucket/app\n"
        "databases:\n"
        "  - /data/app.db\n"
        "  - path: /data/jobs.db\n"
        "    name: jobs\n"
        "  - {path: /data/audit.db, replica: 'file:///audit', name: audit}\n"
    )
    return str(file)


def test_a_single_database_is_called_by_its_file_name() -> None:
    """Without a name, the file's name is the database's."""
    (found,) = _databases(database="/data/app.db", replica="s3://bucket/app")
    assert found == DatabaseSettings(path=Path("/data/app.db"), name="app.db", replica="s3://bucket/app")
    (found,) = _databases(database="/data/app.db", replica="s3://bucket/app", name="production")
    assert found.name == "production"


def test_a_list_shares_the_replica(listed: str) -> None:
    """Each item of a list has the common replica unless it names its own; a plain path is an item too."""
    assert _databases(config=listed) == (
        DatabaseSettings(path=Path("/data/app.db"), name="app.db", replica="s3://bucket/app"),
        DatabaseSettings(path=Path("/data/jobs.db"), name="jobs", replica="s3://bucket/app"),
        DatabaseSettings(path=Path("/data/audit.db"), name="audit", replica="file:///audit"),
    )


def test_a_list_in_a_variable() -> None:
    """The same list can be written in YAML's flow style in a variable or flag."""
    environ = {"REPLICAD_DATABASES": "[/data/a.db, {path: /data/b.db, name: b}]", "REPLICAD_REPLICA": "file:///x"}
    assert [one.name for one in _databases(environ)] == ["a.db", "b"]


def test_choosing_from_a_list_by_name_or_path(listed: str) -> None:
    """`--name` or `--database` above a list means the item the list calls so, with its own replica."""
    (found,) = _databases(config=listed, name="audit")
    assert (found.path, found.replica) == (Path("/data/audit.db"), "file:///audit")
    (found,) = _databases(config=listed, database="/data/jobs.db")
    assert found.name == "jobs"
    (found,) = _databases(config=listed, database="/elsewhere/new.db")
    assert (found.name, found.replica) == ("new.db", "s3://bucket/app")
    message = _refusal(config=listed, name="job")
    assert "job (--name): expected one of app.db, jobs, audit" in message
    assert "Did you mean jobs?" in message


def test_both_forms_in_one_source_contradict(tmp_path: Path) -> None:
    """`database` beside `databases` in the same source is refused."""
    file = tmp_path / "replicad.yml"
    file.write_text("replica: file:///x\ndatabase: /a.db\ndatabases: [/b.db]\n")
    message = _refusal(config=str(file))
    assert "database (replicad.yml:2)" in message
    assert "replicad.yml:3" in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[/a/app.db, /b/app.db]", ["a name of its own", "app.db twice", "`name`"]),
        ("[/a/app.db, {path: /a/app.db, name: other}]", ["a path of its own", "/a/app.db twice"]),
        ("[{name: b}]", ["databases[0] (REPLICAD_DATABASES)", "missing required field `path`"]),
        ("[/a.db, {path: /b.db, nam: b}]", ["nam (databases[1] (REPLICAD_DATABASES))", "Did you mean name?"]),
        ("[{path: [1]}]", ["databases[0]", "Expected `str`"]),
        ("[[/a.db]]", ["databases[0]"]),
        ("[]", ["expected a list of databases"]),
        ("/a.db", ["expected a list of databases", "'/a.db'"]),
        ("[{path: /a.db", ["expected a list of databases"]),
        ("[{path: /a.db, replica: 'http://x'}]", ["databases[0]", "s3://"]),
        ("[{path: /a.db, name: a/b}]", ["databases[0]", "without slashes", "'a/b'"]),
        ("[{path: /a.db, name: ..}]", ["databases[0]", "without slashes"]),
        ('[{path: /a.db, name: "a\\nb"}]', ["databases[0]", "control characters"]),
        ("[{path: /}]", ["databases[0]", "without slashes", "Set `name`"]),
    ],
)
def test_what_is_wrong_in_a_list(text: str, parts: list[str]) -> None:
    """An error in a list names the item, its place, and what was expected."""
    message = _refusal({"REPLICAD_DATABASES": text, "REPLICAD_REPLICA": "file:///x"})
    assert [part for part in parts if part not in message] == []


def test_an_item_in_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    """The place of a wrong item is its own line, not the list's."""
    file = tmp_path / "replicad.yml"
    file.write_text("replica: file:///x\ndatabases:\n  - /a.db\n  - {name: b}\n")
    assert "databases[1] (replicad.yml:4)" in _refusal(config=str(file))


def test_a_name_alone_is_a_database_where_no_file_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command that only reads the store can be given the database's name instead of its path."""
    monkeypatch.chdir(tmp_path)
    loaded = load(flags={"name": "app.db", "replica": "file:///x"}, environ={}, required=("replica",))
    assert loaded.settings.databases[0].name == "app.db"
