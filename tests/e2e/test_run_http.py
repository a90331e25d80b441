"""What `replicad run` shows over HTTP and when, and what its start loads before the first object is stored."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.fault_proxy import Answer, Rule

if TYPE_CHECKING:
    from tests.support.fault_proxy import FaultProxy
    from tests.support.moto_server import MotoServer
    from tests.support.scene import Scene

DEFAULT = ("127.0.0.1", 9090)
SECRET = "wJalrXUtnFEMIK7MDENG"  # noqa: S105 - an example

_IMPORTED = re.compile(r"import time:\s+\d+ \|\s+\d+ \|\s+(\S+)")


def _get(scene: Scene, path: str) -> tuple[int, str]:
    """Return status and body of what the daemon answers over TCP."""
    port = scene.daemon.until("http_started", host="127.0.0.1")["port"]
    connection = http.client.HTTPConnection("127.0.0.1", int(str(port)), timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_a_default_address_that_is_taken_stops_nothing(scene: Scene) -> None:
    """Where nobody chose `http_listen` a taken default is a warning that names it, and replication goes on.

    Seen to fail: the second of two instances on a machine ended with status 64.
    """
    del scene.daemon.environment["REPLICAD_HTTP_LISTEN"]
    scene.create()
    with contextlib.ExitStack() as taken:
        with contextlib.suppress(OSError):  # another program has it: as good
            taken.enter_context(socket.create_server(DEFAULT))
        scene.daemon.start()
    (warning,) = scene.daemon.found("http_address_taken")
    assert (warning["level"], warning["address"]) == ("warning", "127.0.0.1:9090")
    assert "http_listen" in str(warning["error"])
    assert scene.daemon.sync() > 0
    assert scene.daemon.stop() == 0


def test_a_chosen_address_that_is_taken_is_an_error(scene: Scene) -> None:
    """Who asks for an address is told when it cannot be had, with status 64 and before a claim."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        scene.daemon.environment["REPLICAD_HTTP_LISTEN"] = f"127.0.0.1:{taken.getsockname()[1]}"
        scene.daemon.launch(["true"])
        assert scene.daemon.wait() == 64
    assert "http_listen: expected an address that is free" in scene.daemon.lines()
    assert scene.keys() == set()


def test_credentials_are_taken_out_of_what_is_served(scene: Scene) -> None:
    """A configured secret shows nowhere over HTTP, not even where a path has it in it.

    Seen to fail with a server that was given no scrubber.
    """
    environment = scene.daemon.environment
    environment["REPLICAD_HTTP_LISTEN"] = "127.0.0.1:0"
    environment["REPLICAD_S3_ACCESS_KEY_ID"] = "AKIAIOSFODNN7EXAMPLE"
    environment["REPLICAD_S3_SECRET_ACCESS_KEY"] = SECRET
    environment["REPLICAD_DATABASE"] = str(scene.database.with_name(f"{SECRET}.db"))
    scene.daemon.start()
    for path in ("/status", "/"):
        status, served = _get(scene, path)
        assert status == 200
        assert "***.db" in served
        assert SECRET not in served


def test_health_is_answered_while_the_bucket_is_away(remote: Scene, proxy: FaultProxy) -> None:
    """Probes are answered before the first claim, when the store keeps it waiting.

    Seen to fail with a server that begins to answer behind the claim only.
    """
    remote.daemon.environment["REPLICAD_HTTP_LISTEN"] = "127.0.0.1:0"
    proxy.rules.append(Rule(answer=Answer(status=503)))
    remote.daemon.launch()
    assert _get(remote, "/healthz") == (200, "ok\n")
    status, body = _get(remote, "/readyz")
    assert (status, json.loads(body)["reason"]) == (503, "app.db: reaching the store and restoring")
    assert not remote.daemon.found("claim_created")


@pytest.mark.parametrize("of", ["folder", "S3"])
def test_little_is_loaded_before_the_first_object(scene: Scene, moto: MotoServer, of: str) -> None:
    """Until the claim is stored only the way to the store is loaded: no SQLite, no codecs, no HTTP server.

    Seen to fail with each of them imported at the head of the module that uses it: they are a fifth of the start.
    """
    if of == "S3":
        scene.daemon.environment["REPLICAD_REPLICA"] = moto.new_bucket_url()
    scene.daemon.environment["REPLICAD_HTTP_LISTEN"] = "127.0.0.1:0"
    scene.create()
    scene.daemon.start(arguments=("-X", "importtime", "-m", "replicad", "run"))
    before, _, after = scene.daemon.lines().partition('"claim_created"')
    later = {"apsw", "zstandard", "xxhash", "replicad.replicate.assembly"}
    later |= {"aiohttp", "aiohttp.web"} if of == "folder" else set()  # with a slow machine HTTP may not wait for S3
    never = {"pygments", "yaml", "dateparser", "prometheus_client", "boto3"}
    assert not (later | never) & set(_IMPORTED.findall(before))
    assert later <= set(_IMPORTED.findall(after))
    assert not never & set(_IMPORTED.findall(after))
