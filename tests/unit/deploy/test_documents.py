from __future__ import annotations

import re

import pytest
import yaml

from replicad import errors
from replicad.config import SETTINGS
from tests.support.mentions import (
    ROOT,
    code_spans,
    complaint,
    fenced,
    headings,
    known_events,
    known_metrics,
    known_variables,
    logged_events,
    markdown_command_lines,
    metrics,
    variables,
)

DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    "docs/operations.md",
    "docs/bucket.md",
    "docs/failure-model.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs/decisions").glob("*.md"))),
]
NOT_OURS = {
    "written_at",  # a column of the example
    "locking_mode",  # SQLite's
    "integrity_check",
    "wal_checkpoint",
    "sqlite_dbpage",
    "kill_signal",  # Fly's
    "kill_timeout",
    "stop_grace_period",  # Compose's
}
"""Words with an underscore that the documents show as code and that belong to somebody else."""


def text(name: str) -> str:
    """Return a document."""
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_variable_and_metric_named_exists(name: str) -> None:
    """No document names a command, a flag, a variable or a metric that is not there."""
    body = text(name)
    assert variables(body) <= known_variables()
    assert metrics(body) <= known_metrics()
    assert [found for line in markdown_command_lines(body) if (found := complaint(line))] == []


@pytest.mark.parametrize("name", ["README.md", "docs/operations.md", "docs/bucket.md", "docs/failure-model.md"])
def test_every_event_and_setting_named_exists(name: str) -> None:
    """A word with an underscore that is shown as code is a log event, a setting, a metric or known to be another's."""
    words = {span.partition(":")[0] for span in code_spans(text(name))}
    underscored = {word for word in words if re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", word)}
    known = known_events() | {setting.name for setting in SETTINGS} | known_metrics() | NOT_OURS
    assert underscored <= known


@pytest.mark.parametrize("name", ["docs/operations.md", "docs/failure-model.md"])
def test_every_event_promised_is_logged(name: str) -> None:
    """What a document says is printed is logged by some module, and not only declared as a name."""
    body = text(name)
    promised = (set(code_spans(body)) | headings(body)) & known_events()
    assert promised <= logged_events()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    """A relative link names a file that exists and, where it names a heading, one that is there."""
    for target in re.findall(r"\]\(([^)]+)\)", text(name)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / name).parent / path if path else ROOT / name
        assert linked.exists(), target
        if anchor:
            anchors = {heading.lower().replace(" ", "-") for heading in headings(linked.read_text(encoding="utf-8"))}
            assert anchor in anchors, target


def test_every_runbook_is_an_alerts_or_an_events() -> None:
    """The runbooks are exactly the alerts' names; what has no alert is at least a log event."""
    body = text("docs/operations.md")
    with_alert, _, without = body.partition("\n## Runbooks\n")[2].partition("\n## Without an alert\n")
    groups = yaml.safe_load(text("deploy/alerts.yaml"))["groups"]
    assert headings(with_alert) == {rule["alert"] for group in groups for rule in group["rules"]}
    assert headings(without) <= known_events()


def test_every_exit_status_is_explained() -> None:
    """The table of exit statuses has a row for each status that an error of replicad's can end with."""
    section = text("docs/operations.md").partition("### Exit statuses")[2].partition("\n## ")[0]
    explained = {int(status) for status in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.ReplicadError)]
    assert {one.exit_code for one in classes} <= explained


def test_the_dockerfile_of_the_readme_is_ten_lines() -> None:
    """An existing Dockerfile needs no more than ten lines, and keeps its command as the last of them."""
    (block,) = fenced(text("README.md"), "dockerfile")
    lines = block.strip().splitlines()
    assert len(lines) <= 10
    assert lines[-2] == 'ENTRYPOINT ["replicad", "run", "--"]'
    assert lines[-1].startswith("CMD [")


def test_the_other_blocks_of_the_readme_are_well_formed() -> None:
    """The README's YAML parses and its Python compiles."""
    for block in fenced(text("README.md"), "yaml"):
        assert yaml.safe_load(block)
    for block in fenced(text("README.md"), "python"):
        compile(block, "README.md", "exec")


def test_the_changelog_opens_with_data_loss() -> None:
    """Before any version the changelog says which versions could lose data."""
    assert re.findall(r"^## (.+)$", text("CHANGELOG.md"), re.MULTILINE)[0] == "Data loss"
