from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.support.mentions import ROOT, command_line, command_lines, complaint, known_variables, variables

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKERFILE = ROOT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Return (keyword, arguments) of each instruction, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in joined.splitlines() if line.strip()]


def stages() -> list[list[tuple[str, str]]]:
    """Return the instructions of each stage, without what stands before the first FROM."""
    found: list[list[tuple[str, str]]] = []
    for keyword, arguments in instructions():
        if keyword == "FROM":
            found.append([])
        if found:
            found[-1].append((keyword, arguments))
    return found


def last(keyword: str) -> str:
    """Return the arguments of the final stage's last instruction of a kind."""
    return [arguments for found, arguments in stages()[-1] if found == keyword][-1]


def test_the_base_is_pinned_and_slim() -> None:
    """Every stage is built on one slim Python image with a version in its tag, never on `latest`."""
    arguments = dict(one.split("=", 1) for keyword, one in instructions() if keyword == "ARG")
    assert re.fullmatch(r"python:3\.\d+(\.\d+)?-slim-\w+", arguments["PYTHON_IMAGE"])
    assert [stage[0][1].split()[0] for stage in stages()] == ["${PYTHON_IMAGE}"] * 2


def test_the_final_stage_has_no_tools_to_build_with() -> None:
    """The image holds a virtual environment copied from the build stage; nothing is fetched or compiled in its own."""
    run = " ".join(arguments for keyword, arguments in stages()[-1] if keyword == "RUN")
    assert not re.search(r"\b(pip|apt-get|gcc|curl)\b", run)
    assert "--only-binary" in " ".join(arguments for keyword, arguments in stages()[0] if keyword == "RUN")


def test_it_runs_as_a_user_without_rights() -> None:
    """The process is not root, and is named by number, which Kubernetes' runAsNonRoot can check."""
    user, _, group = last("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_the_entrypoint_puts_replicad_in_front_of_the_command() -> None:
    """`docker run IMAGE CMD…` runs CMD behind replicad, in exec form, so that signals reach it."""
    words = json.loads(last("ENTRYPOINT"))
    assert words == ["replicad", "run", "--"]
    line = command_line(words)
    assert line is not None
    assert complaint(line) is None


def test_every_command_and_variable_named_exists() -> None:
    """The Dockerfile names no command, flag or variable of replicad's that is not there."""
    body = DOCKERFILE.read_text(encoding="utf-8")
    assert variables(body) <= known_variables()
    runs = [arguments for keyword, arguments in instructions() if keyword == "RUN"]
    lines = list(command_lines(part for run in runs for part in run.split("&&") if "bin/replicad " in part))
    assert [line.command for line in lines if complaint(line) is None] == ["version"]


def test_the_build_context_holds_what_the_build_copies() -> None:
    """The .dockerignore lets through what is copied, and the README and LICENSE that the package's metadata names."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        source.removeprefix("./")
        for keyword, arguments in stages()[0]
        if keyword == "COPY"
        for source in arguments.split()[:-1]
    }
    assert "*" in ignored
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


@pytest.fixture
def health() -> Iterator[tuple[int, list[str]]]:
    """A server that answers /healthz with 200 and all else with 503; gives its port and the paths it was asked for."""
    asked: list[str] = []

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path == "/healthz" else 503)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Stay silent."""

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join()


def health_command() -> list[str]:
    """Return the HEALTHCHECK's command with this interpreter in the place of the image's."""
    words: list[str] = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert words[0] == "python3"
    return [sys.executable, *words[1:]]


def test_the_health_check_asks_about_the_process_alone(health: tuple[int, list[str]]) -> None:
    """The container's health is /healthz, which never depends on the bucket, at the port that was configured."""
    port, asked = health
    environment = {"REPLICAD_HTTP_LISTEN": f"0.0.0.0:{port}"}
    done = subprocess.run(health_command(), env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert asked == ["/healthz"]


def test_the_health_check_fails_when_nothing_answers(health: tuple[int, list[str]]) -> None:
    """A process that does not answer, or answers otherwise, is not healthy."""
    port, _ = health
    command = [word.replace("/healthz", "/other") for word in health_command()]
    environment = {"REPLICAD_HTTP_LISTEN": f"[::]:{port}"}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode != 0
