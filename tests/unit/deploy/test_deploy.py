from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml

from replicad import errors
from replicad.config import load
from replicad.observe.answers import Answers
from replicad.observe.metrics import Metrics
from replicad.observe.scrub import Scrubber
from tests.support.mentions import (
    ROOT,
    command_line,
    command_lines,
    complaint,
    headings,
    known_events,
    known_metrics,
    known_variables,
    metrics,
    variables,
)

if TYPE_CHECKING:
    from replicad.config import Settings
    from replicad.observe.http import Control

DEPLOY = ROOT / "deploy"
FILES = sorted(path.name for path in DEPLOY.iterdir())
CREDENTIALS = {"REPLICAD_S3_ACCESS_KEY_ID": "id", "REPLICAD_S3_SECRET_ACCESS_KEY": "secret"}


def text(name: str) -> str:
    """Return a deployment file."""
    return (DEPLOY / name).read_text(encoding="utf-8")


def documents(name: str) -> list[Any]:
    """Return the documents of a YAML file."""
    return list(yaml.safe_load_all(text(name)))


def unit() -> configparser.RawConfigParser:
    """Read the systemd unit; a key that stands there several times becomes one value of several lines."""

    class Several(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:  # noqa: ANN401 - configparser's own values
            if key in self and isinstance(value, list):
                value = [*self[key], *value]
            super().__setitem__(key, value)

    parser = configparser.RawConfigParser(strict=False, interpolation=None, dict_type=Several)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
    parser.read_string(text("replicad.service"))
    return parser


def kubernetes(kind: str) -> dict[str, Any]:
    """Return the Kubernetes object of one kind."""
    found: dict[str, Any] = next(one for one in documents("kubernetes.yaml") if one["kind"] == kind)
    return found


def pod() -> dict[str, Any]:
    """Return the specification of the Kubernetes pod."""
    found: dict[str, Any] = kubernetes("Deployment")["spec"]["template"]["spec"]
    return found


def environment(name: str) -> dict[str, str]:
    """Return the variables that a deployment file gives to replicad."""
    match name:
        case "render.yaml":
            given = {one["key"]: one.get("value") for one in documents(name)[0]["services"][0]["envVars"]}
        case "compose.yaml":
            given = documents(name)[0]["services"]["app"]["environment"]
        case "kubernetes.yaml":
            given = kubernetes("ConfigMap")["data"] | kubernetes("Secret")["stringData"]
        case "fly.toml":
            given = tomllib.loads(text(name))["env"]
        case "replicad.service":
            lines = unit()["Service"]["Environment"].splitlines()
            given = dict(shlex.split(line)[0].split("=", 1) for line in lines)
        case _:
            raise AssertionError(name)
    return CREDENTIALS | {key: value for key, value in given.items() if value is not None}


def settings(name: str) -> Settings:
    """Return the settings that replicad would start with."""
    return load(flags={}, environ=environment(name)).settings


def exec_forms(name: str) -> list[list[str]]:
    """Return the programs that a deployment file starts."""
    match name:
        case "compose.yaml":
            return [service["command"] for service in documents(name)[0]["services"].values()]
        case "kubernetes.yaml":
            containers = pod()["initContainers"] + pod()["containers"]
            return [container["command"] for container in containers if "command" in container]
        case "replicad.service":
            return [shlex.split(unit()["Service"]["ExecStart"])]
        case _:
            return []


@pytest.mark.parametrize("name", [name for name in FILES if name != "alerts.yaml"])
def test_settings_are_ones_replicad_starts_with(name: str) -> None:
    """Every deployment file gives replicad a configuration that its own parser accepts, every value within bounds."""
    one = settings(name)
    assert one.databases[0].path.is_absolute()
    assert one.databases[0].replica.startswith("s3://")


@pytest.mark.parametrize("name", FILES)
def test_every_variable_metric_and_command_named_exists(name: str) -> None:
    """No deployment file names, in values or comments, a variable, metric, command or flag that is not there."""
    body = text(name)
    assert variables(body) <= known_variables()
    assert metrics(body) <= known_metrics()
    started = [line for words in exec_forms(name) if (line := command_line(words)) is not None]
    comments = [line for line in body.splitlines() if re.match(r"^#\s{2,}", line)]
    for line in [*started, *command_lines(comments)]:
        assert complaint(line) is None


def test_a_name_that_does_not_exist_is_noticed() -> None:
    """The checks above can fail: a command, a flag, a variable and a metric that are made up are each found out."""
    (wrong_command,) = command_lines(["replicad restroe --at now"])
    (wrong_flag,) = command_lines(["replicad restore --ta now"])
    (right,) = command_lines(["x && replicad restore --at 'an hour ago' # comment"])
    assert complaint(wrong_command) is not None
    assert complaint(wrong_flag) is not None
    assert complaint(right) is None
    assert variables("REPLICAD_REPLIKA=x") - known_variables() == {"REPLICAD_REPLIKA"}
    assert metrics("rate(replicad_lag_total[5m])") - known_metrics() == {"replicad_lag_total"}


@pytest.mark.parametrize(
    ("name", "grace_seconds"),
    [
        ("render.yaml", 30.0),  # Render's own, unless maxShutdownDelaySeconds is set
        ("compose.yaml", float(documents("compose.yaml")[0]["services"]["app"]["stop_grace_period"].rstrip("s"))),
        ("kubernetes.yaml", float(pod()["terminationGracePeriodSeconds"])),
        ("fly.toml", float(tomllib.loads(text("fly.toml"))["kill_timeout"].rstrip("s"))),
        ("replicad.service", float(unit()["Service"]["TimeoutStopSec"])),
    ],
)
def test_stopping_fits_into_the_grace_period(name: str, grace_seconds: float) -> None:
    """The application's stop and the final flush together end before the platform sends SIGKILL."""
    one = settings(name)
    assert one.stop_timeout_seconds + one.flush_timeout_seconds < grace_seconds


def test_kubernetes_restores_then_attaches_then_starts_the_application() -> None:
    """In Kubernetes the first init container restores and ends, the second is a sidecar that holds the application."""
    restore, sidecar = pod()["initContainers"]
    assert restore["command"][:2] == ["replicad", "restore"]
    assert "restartPolicy" not in restore
    assert {"--if-missing", "--if-replica-exists"} <= set(restore["command"])
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert "readinessProbe" not in sidecar, "a bucket that is away must not take the application out of its Service"
    assert kubernetes("Deployment")["spec"]["strategy"]["type"] == "Recreate"
    assert all(volume.get("emptyDir") == {} for volume in pod()["volumes"]), "no PersistentVolume"


def test_probes_ask_for_paths_that_are_served() -> None:
    """Every path of replicad's own that a probe or a scrape asks for is one that its HTTP interface serves."""
    answers = Answers(cast("Control", None), Metrics(version="0", wall_seconds=lambda: 0.0), Scrubber())
    served = {route.path for route in answers.reading()}
    asked = {sidecar_probe["httpGet"]["path"] for sidecar_probe in _probes()}
    asked.add(tomllib.loads(text("fly.toml"))["metrics"]["path"])
    assert asked <= served
    assert settings("kubernetes.yaml").http_listen is not None
    assert str(settings("kubernetes.yaml").http_listen).startswith("0.0.0.0:"), "the kubelet probes the pod's address"


def test_systemd_is_notified_and_does_not_repeat_what_cannot_succeed() -> None:
    """The unit waits for the notification of readiness and gives up only on statuses that another start cannot cure."""
    service = unit()["Service"]
    assert service["Type"] == "notify"
    known = {one.exit_code for one in vars(errors).values() if isinstance(one, type) and hasattr(one, "exit_code")}
    given_up = {int(status) for status in service["RestartPreventExitStatus"].split()}
    assert given_up <= known
    assert given_up.isdisjoint({13, 75}), "a bucket that was away may be back"


def test_every_alert_has_a_metric_an_event_and_a_runbook() -> None:
    """Each alert bears the name of a log event and of a runbook heading, and asks only for metrics that exist."""
    runbooks = headings((ROOT / "docs/operations.md").read_text(encoding="utf-8"))
    rules = [rule for group in documents("alerts.yaml")[0]["groups"] for rule in group["rules"]]
    names = [rule["alert"] for rule in rules]
    assert len(set(names)) == len(names)
    for rule in rules:
        name = rule["alert"]
        assert name in known_events()
        assert name in runbooks
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name}"
        assert metrics(rule["expr"])
        kinds = re.findall(r'kind[!=~]+"([^"]+)"', rule["expr"])
        assert all(hasattr(errors, kind) for matched in kinds for kind in matched.split("|"))


def _probes() -> list[dict[str, Any]]:
    sidecar = pod()["initContainers"][1]
    return [sidecar[name] for name in ("startupProbe", "livenessProbe")]
