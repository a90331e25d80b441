"""What went over the wire: a proxy's process, and the requests it saw."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_PATIENCE_SECONDS = 10.0


@dataclass(slots=True, kw_only=True)
class Request:
    """One request; `ended` is None while it is not answered."""

    verb: str
    path: str
    began: float
    ended: float | None = None
    status: int = 0
    sent: int = 0
    received: int = 0

    @property
    def key(self) -> str:
        """Bucket and key."""
        return unquote(self.path.partition("?")[0]).strip("/")

    @property
    def query(self) -> str:
        """What stands behind the question mark."""
        return self.path.partition("?")[2]

    def stores(self, objects: re.Pattern[str]) -> bool:
        """Tell whether it is a part of storing an object whose key matches."""
        return self.verb in ("PUT", "POST") and "delete" not in self.query and objects.search(self.key) is not None

    def completes(self, objects: re.Pattern[str]) -> bool:
        """Tell whether such an object is durable with its answer."""
        whole = self.verb == "PUT" and "partNumber" not in self.query
        return self.stores(objects) and (whole or "uploadId=" in self.query) and self.status == 200


@dataclass(slots=True)
class Wire:
    """A proxy with one latency and one limit; counts for one tool."""

    folder: Path
    upstream: int
    delay_ms: float = 0.0
    bytes_per_second: float = 0.0
    _process: subprocess.Popen[bytes] | None = None
    _port: int = 0
    _offset: int = 0
    _seen: dict[int, Request] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        port_file = self.folder / "port"
        command = [sys.executable, "-m", "bench.peers.proxy", str(port_file), str(self._log), str(self.upstream)]
        self._process = subprocess.Popen([*command, str(self.delay_ms), str(self.bytes_per_second)])
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not port_file.exists():
            if time.monotonic() > deadline:
                raise TimeoutError("the proxy did not start")
            time.sleep(0.01)
        self._port = int(port_file.read_text())
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def endpoint(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def _log(self) -> Path:
        return self.folder / "requests"

    def requests(self, since: float = 0.0) -> list[Request]:
        """Return the requests that began then or later, so far, in the order in which they began."""
        self._read()
        return [request for request in self._seen.values() if request.began >= since]

    def stored(self, objects: re.Pattern[str], since: float = 0.0) -> list[Request]:
        """Return those that made an object durable."""
        return [request for request in self.requests(since) if request.completes(objects)]

    def until_stored(self, objects: re.Pattern[str], *, since: float, count: int, seconds: float = 600.0) -> None:
        """Wait until so many objects are stored whose requests began then or later."""
        deadline = time.monotonic() + seconds
        while len(self.stored(objects, since)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no object {objects.pattern} was stored")
            time.sleep(0.05)

    def until_quiet(self, objects: re.Pattern[str], *, quiet_seconds: float, seconds: float = 600.0) -> float:
        """Wait until nothing of these objects has been on its way for a while; return when the last was stored."""
        began = time.monotonic()
        while True:
            moving = [request for request in self.requests() if request.stores(objects)]
            last = max((request.ended or time.monotonic() for request in moving), default=began)
            if time.monotonic() - max(last, began) >= quiet_seconds:
                return last
            if time.monotonic() - began > seconds:
                raise TimeoutError("it did not become quiet")
            time.sleep(0.05)

    def _read(self) -> None:
        if not self._log.exists():
            return
        with self._log.open("rb") as log:
            log.seek(self._offset)
            for raw in log:
                if not raw.endswith(b"\n"):
                    break
                self._offset += len(raw)
                line = json.loads(raw)
                number = line.pop("id")
                if "began" in line:
                    self._seen[number] = Request(**line)
                else:
                    seen = self._seen[number]
                    seen.ended, seen.status = line["ended"], line["status"]
                    seen.sent, seen.received = line["sent"], line["received"]


def by_verb(requests: Iterable[Request]) -> Counter[str]:
    """Count requests as a bill does: LIST apart from GET, and PUT for all that is priced like it."""
    return Counter(_billed(request) for request in requests)


def _billed(request: Request) -> str:
    if request.verb == "GET" and ("list-type" in request.query or "/" not in request.key or "prefix=" in request.query):
        return "LIST"
    return request.verb


def sent_bytes(requests: Iterable[Request]) -> int:
    """Sum what was sent, heads included."""
    return sum(request.sent for request in requests)


def received_bytes(requests: Iterable[Request]) -> int:
    """Sum what was received."""
    return sum(request.received for request in requests)


def dollars(requests: Iterable[Request]) -> float:
    """Price requests as AWS S3 Standard does in us-east-1; deleting is free, traffic within a region too."""
    price = {"PUT": 5e-6, "POST": 5e-6, "COPY": 5e-6, "LIST": 5e-6, "GET": 0.4e-6, "HEAD": 0.4e-6}
    return sum(price.get(verb, 0.0) * count for verb, count in by_verb(requests).items())


def verbs(requests: Iterable[Request]) -> Iterator[str]:
    """Say how many of each."""
    return (f"{verb} {count}" for verb, count in sorted(by_verb(requests).items()))
