"""Google Cloud Storage as far as a create can tell: a proxy in front of moto with Google's rules for conditions.

    with running_moto() as moto, running_google(moto.port) as google:
        url = f"s3://{moto.new_bucket()}?endpoint={google.endpoint}&creates=generation-match"

What public sources say that it does, and this does as well (docs/decisions/0011-google-cloud-storage.md):

- `If-None-Match` on a put is ignored;
- `x-goog-*` beside `x-amz-*` headers is 400 ExcessHeaderValues;
- a request signed GOOG4-HMAC-SHA256 must be signed right, with every `x-goog-*` header in the signature;
- with `x-goog-if-generation-match: 0` a put onto an object is 412.

The signature is computed anew by botocore's own signer, with Google's words put in.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.moto_server import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGNED = re.compile(r"GOOG4-HMAC-SHA256 Credential=([^/]+)/([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]{64})")
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host"}
_FOR_MOTO = "AWS4-HMAC-SHA256 Credential=any/20000101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
_KEY = (CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])


@dataclass(slots=True, kw_only=True)
class GoogleServer:
    """A running server, and the heads of the puts that it saw."""

    endpoint: str
    puts: list[dict[str, str]] = field(default_factory=list)  # names in lower case


class _Goog4(S3SigV4Auth):  # type: ignore[misc] # botocore has no types
    """botocore's arithmetic with Google's words."""

    def scope(self, request: AWSRequest) -> str:
        return "/".join((self.credentials.access_key, self.credential_scope(request)))

    def credential_scope(self, request: AWSRequest) -> str:
        return "/".join((request.context["timestamp"][:8], "auto", "storage", "goog4_request"))

    def string_to_sign(self, request: AWSRequest, canonical_request: str) -> str:
        said: str = super().string_to_sign(request, canonical_request)
        return said.replace("AWS4-HMAC-SHA256", "GOOG4-HMAC-SHA256", 1)

    def signature(self, string_to_sign: str, request: AWSRequest) -> str:
        key = f"GOOG4{self.credentials.secret_key}".encode()
        for part in self.credential_scope(request).split("/"):
            key = self._sign(key, part)
        return str(self._sign(key, string_to_sign, hex=True))

    def payload(self, request: AWSRequest) -> str:
        return str(request.headers["x-goog-content-sha256"])


def signature_of(method: str, url: str, headers: dict[str, str], names: str) -> str:
    """Return the signature that a request with these headers should have."""
    covered = {name: headers[name] for name in names.split(";")}
    request = AWSRequest(method=method, url=url, headers=covered)
    request.context["timestamp"] = headers["x-goog-date"]
    signer = _Goog4(Credentials(*_KEY), "storage", "auto")
    canonical = "\n".join(
        (
            method,
            signer._normalize_url_path(request.url.partition("://")[2].partition("/")[2].join(("/", ""))),
            "",
            signer.canonical_headers(request.headers),
            "",
            names,
            signer.payload(request),
        )
    )
    return signer.signature(signer.string_to_sign(request, canonical), request)


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    moto_port: ClassVar[int]
    google: ClassVar[GoogleServer]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): text for name, text in self.headers.items()}
        if self.command == "PUT":
            self.google.puts.append(dict(headers))
            headers.pop("if-none-match", None)
        refused = self._refusal(headers)
        if refused is not None:
            self._answer(refused[0], {}, f"<Error><Code>{refused[1]}</Code><Message/></Error>".encode())
            return
        if headers.pop("x-goog-if-generation-match", None) == "0":
            headers |= {"if-none-match": "*", "authorization": _FOR_MOTO}
        kept = {name: text for name, text in headers.items() if name not in _HOP_BY_HOP and "x-goog-" not in name}
        connection = http.client.HTTPConnection("127.0.0.1", self.moto_port, timeout=30)
        try:
            connection.request(self.command, self.path, body or None, kept)
            answer = connection.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def _refusal(self, headers: dict[str, str]) -> tuple[int, str] | None:
        prefixes = {prefix for prefix in ("x-amz-", "x-goog-") for name in headers if name.startswith(prefix)}
        if len(prefixes) > 1:
            return 400, "ExcessHeaderValues"
        if "x-goog-" not in prefixes:
            return None
        match = _SIGNED.fullmatch(headers.get("authorization", ""))
        if match is None:
            return 403, "AccessDenied"
        names = set(match[3].split(";"))
        if not {name for name in headers if name.startswith("x-goog-")} | {"host"} <= names:
            return 403, "SignatureDoesNotMatch"
        url = f"http://{headers['host']}{self.path}"
        right = signature_of(self.command, url, headers, match[3]) == match[4] and match[1] == _KEY[0]
        return None if right else (403, "SignatureDoesNotMatch")

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, text in headers.items():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, text)
        known = headers.get("Content-Length", "0")
        self.send_header("Content-Length", known if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward  # noqa: N815 - the base class's names


@contextlib.contextmanager
def running_google(moto_port: int) -> Iterator[GoogleServer]:
    """Serve in front of a moto server, on a free port of 127.0.0.1, until the end of the context."""
    proxy = type("_ProxyOfOne", (_Proxy,), {"moto_port": moto_port})
    with ThreadingHTTPServer(("127.0.0.1", 0), proxy) as server:
        server.daemon_threads = True
        google = GoogleServer(endpoint=f"http://127.0.0.1:{server.server_address[1]}")
        proxy.google = google  # type: ignore[attr-defined]
        serving = threading.Thread(target=server.serve_forever, name="google", daemon=True)
        serving.start()
        try:
            yield google
        finally:
            server.shutdown()
            serving.join()
