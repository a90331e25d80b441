"""A moto S3 server that enforces IAM policies, in a process of its own.

    with running_iam() as server:
        bucket = server.new_bucket()
        key_id, secret = server.new_user({"Version": "2012-10-17", "Statement": [...]})

moto checks signatures, actions and resources. What it does not do is added here, in the child: the condition
`s3:prefix` of a listing, and that whoever may not list the bucket is told 403 of a key that does not exist, as AWS
does (docs/bucket.md has the source).
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import logging
import os
import secrets
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REGION = "us-east-1"

_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class IAMServer:
    """A running server; all but the owner's view of a bucket goes through policies."""

    endpoint: str
    _child: subprocess.Popen[str]

    def new_bucket(self) -> str:
        """Create an empty bucket, and return its name."""
        name = f"bucket-{secrets.token_hex(6)}"
        self._ask({"bucket": name})
        return name

    def new_user(self, policy: Mapping[str, object]) -> tuple[str, str]:
        """Create a user with this policy; return access key and secret key."""
        answer = self._ask({"user": f"user-{secrets.token_hex(4)}", "policy": json.dumps(policy)})
        return str(answer["id"]), str(answer["secret"])

    def keys(self, bucket: str) -> list[str]:
        """Return the keys in a bucket, as its owner sees them."""
        found: list[str] = self._ask({"keys": bucket})["keys"]
        return found

    def open_uploads(self, bucket: str) -> int:
        """Return how many multipart uploads were begun and not ended."""
        return int(self._ask({"uploads": bucket})["uploads"])

    def _ask(self, question: Mapping[str, object]) -> dict[str, Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(question) + "\n")
        self._child.stdin.flush()
        answer: dict[str, Any] = json.loads(self._child.stdout.readline())
        return answer


@contextlib.contextmanager
def running_iam() -> Iterator[IAMServer]:
    """Start a server on a free port of 127.0.0.1, and stop it at the end."""
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.support.iam_server"],
        cwd=_REPOSITORY,
        env={**os.environ, "AWS_DEFAULT_REGION": REGION},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield IAMServer(endpoint=child.stdout.readline().strip(), _child=child)
    finally:
        child.stdin.close()
        child.stdout.close()
        child.wait(10)


def _enforce() -> None:
    from moto import settings  # noqa: PLC0415 - only the child imports moto
    from moto.iam import access_control  # noqa: PLC0415
    from moto.s3.exceptions import MissingKey  # noqa: PLC0415
    from moto.s3.responses import S3Response  # noqa: PLC0415

    asked = threading.local()
    get_object = S3Response.get_object
    set_action = S3Response._set_action

    def conditions_hold(statement: Any, _incoming: object) -> bool:  # noqa: ANN401 - moto's own types
        condition = statement._statement.get("Condition", {})
        exact, if_there = (condition.get(kind, {}).get("s3:prefix") for kind in ("StringLike", "StringLikeIfExists"))
        wanted = exact or if_there
        if wanted is None or asked.prefix is None:
            return exact is None
        return any(fnmatch.fnmatchcase(asked.prefix, one) for one in wanted)

    def set_and_remember(self: Any, kind: str, method: str, query: Any) -> None:  # noqa: ANN401
        asked.prefix = query.get("prefix", [None])[0] if kind == "BUCKET" else None
        set_action(self, kind, method, query)

    def get_or_deny(self: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        try:
            return get_object(self, *arguments, **named)
        except MissingKey:
            asked.prefix, self.data["Action"] = None, "ListBucket"
            self._authenticate_and_authorize_s3_action(bucket_name=self.bucket_name)
            raise

    for owner, name, function in (
        (access_control.IAMPolicyStatement, "_check_conditions", conditions_hold),
        (S3Response, "_set_action", set_and_remember),
        (S3Response, "get_object", get_or_deny),
    ):
        setattr(owner, name, function)
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0


def _answer(question: Mapping[str, str]) -> Mapping[str, object]:
    from moto.iam.models import iam_backends  # noqa: PLC0415 - only the child imports moto
    from moto.s3.models import s3_backends  # noqa: PLC0415

    iam, s3 = iam_backends["123456789012"]["aws"], s3_backends["123456789012"]["aws"]
    if "bucket" in question:
        s3.create_bucket(question["bucket"], REGION)
        return {}
    if "keys" in question:
        return {"keys": sorted(key for key, _ in s3.get_bucket(question["keys"]).keys.items())}
    if "uploads" in question:
        return {"uploads": len(s3.get_bucket(question["uploads"]).multiparts)}
    iam.create_user(REGION, question["user"])
    iam.put_user_policy(question["user"], "policy", question["policy"])
    key = iam.create_access_key(question["user"])
    return {"id": key.access_key_id, "secret": key.secret_access_key}


def _serve() -> None:
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - only the child imports moto
    from werkzeug.serving import WSGIRequestHandler  # noqa: PLC0415

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    WSGIRequestHandler.disable_nagle_algorithm = True
    _enforce()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)  # noqa: T201 - the parent reads it
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)  # noqa: T201 - likewise
    os._exit(0)


if __name__ == "__main__":
    _serve()
