from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import botocore
import pytest

from replicad.lean import without_module, without_trusted_roots

ROOTS = str(Path(botocore.__file__).with_name("cacert.pem"))


def _roots() -> int:
    return ssl.create_default_context().cert_store_stats()["x509"]


def test_a_module_is_hidden_for_a_while() -> None:
    """A hidden module cannot be imported, and can be afterwards."""
    name = "this"  # nobody has it loaded
    sys.modules.pop(name, None)
    with without_module(name), pytest.raises(ImportError):
        __import__(name)
    assert name not in sys.modules


def test_a_module_that_is_there_stays() -> None:
    """What is loaded already is not taken from anybody."""
    with without_module("json"):
        assert __import__("json").loads("1") == 1
    assert "json" in sys.modules


def test_trusted_roots_are_left_out_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A context made inside trusts nobody and still verifies; one of another thread, or later, has its roots."""
    monkeypatch.setenv("SSL_CERT_FILE", ROOTS)
    others: list[int] = []
    with without_trusted_roots():
        context = ssl.create_default_context()
        thread = threading.Thread(target=lambda: others.append(_roots()))
        thread.start()
        thread.join()
    assert context.cert_store_stats()["x509"] == 0
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert others[0] > 0
    assert _roots() == others[0]


@pytest.mark.parametrize(
    "load",
    [
        "import asyncio, replicad.store.open as o; asyncio.run(o.open_store('s3://bucket?endpoint=http://127.0.0.1:1'))",
        "import replicad.observe.http as h; h.HttpServer(None, None)._load_answers()",
    ],
)
def test_aiohttp_is_loaded_without_roots(load: str) -> None:
    """Neither the S3 client nor the HTTP server has aiohttp read certificates that nobody uses.

    Seen to fail with the plain import: 50 ms of each start, and 2 MB.
    """
    code = f"{load}\nimport aiohttp.connector as c\nassert not c._SSL_CONTEXT_VERIFIED.cert_store_stats()['x509']"
    environment = os.environ | {"SSL_CERT_FILE": ROOTS, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60, env=environment)
