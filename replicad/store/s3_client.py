"""Opening an S3 client: aiobotocore, made small, quick to start, and honest about what it sends.

What differs from aiobotocore's own settings, and why:

- no retries of its own (`replicad.store.retrying` has the one policy), no resends, no redirects;
- checksums only where S3 demands them: the SDK's newer defaults are refused by many compatible stores. TLS
  guards the body on its way, and every object replicad stores has a hash of its own inside;
- no `Expect: 100-continue`, which costs each put a whole round trip;
- it says that it is replicad, once and for all: botocore makes its own, longer name anew for every request;
- over https the body is not hashed for the signature; that saves half of a put's CPU time;
- no CA bundle is loaded for an http endpoint.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.handlers import add_expect_header

from replicad import __version__
from replicad.errors import StoreRefused
from replicad.store.s3_errors import CLIENT_ERRORS, Attempt, translate
from replicad.store.s3_google import create_by_generation
from replicad.store.s3_http import SingleRequestSession
from replicad.store.s3_model import TrimmedLoader

if TYPE_CHECKING:
    from replicad.store.options import StoreOptions
    from replicad.store.url import S3Location

_IDLE_SECONDS = 50.0  # a kept connection is dropped before the usual 60 s of servers and balancers
_DEFAULT_REGION = "us-east-1"
_SESSION_VARIABLES = {"region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)}
_SECRET_FIELDS = frozenset({"access_key", "secret_key", "token"})
_NO_CREDENTIALS = (
    "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Connection:
    """An open client with the bucket it is for."""

    client: Any  # aiobotocore's S3 client, which has no types
    bucket: str
    url: str  # for messages, without prefix and secrets
    credentials: Any  # botocore's, refreshed by it

    def __repr__(self) -> str:
        return f"S3Connection({self.url})"

    def secrets(self) -> tuple[str, ...]:
        """Return what must not appear in a message, as of now: credentials of a role change every few hours."""
        return tuple(
            text
            for name, text in vars(self.credentials).items()
            if name.lstrip("_") in _SECRET_FIELDS and isinstance(text, str) and text
        )

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()


async def connect(location: S3Location, options: StoreOptions) -> S3Connection:
    """Open a client; no request is made yet, unless the platform has to be asked for credentials.

    Raises:
        StoreRefused: there are no credentials, or the platform's settings are wrong.
        StoreUnreachable: the platform's credential service does not answer.
    """
    url = _url(location)
    try:
        session, credentials = await asyncio.to_thread(_prepare, options)
        if credentials is None:
            raise StoreRefused(store=url, operation="opening it", found=_NO_CREDENTIALS)
        client = await _open_client(session, location, options)
    except (*CLIENT_ERRORS, ValueError) as error:
        raise translate(error, Attempt(store=url, operation="opening it", key="")) from error
    client.meta.events.unregister("before-call.s3", add_expect_header)
    client.meta.events.register_last("before-call.s3.DeleteObjects", _sign_with_md5)
    if location.creates_by_generation:
        create_by_generation(client, credentials)
    return S3Connection(client=client, bucket=location.bucket, url=url, credentials=credentials)


def _prepare(options: StoreOptions) -> tuple[AioSession, Any]:
    """Read all that is read from disk, and find the credentials; in a thread, away from the event loop.

    Returns:
        A session, and its credentials or None.
    """
    session = AioSession(session_vars=_SESSION_VARIABLES)
    session.register_component("data_loader", _loader())
    if options.access_key_id is not None and options.secret_access_key is not None:
        session.set_credentials(options.access_key_id, options.secret_access_key, options.session_token)
    credentials = asyncio.run(_find_credentials(session))
    _ = session.full_config  # kept by the session
    return session, credentials


@functools.cache
def _loader() -> TrimmedLoader:
    """Return the loader of this process, with all in it that opening a client will ask for."""
    loader = TrimmedLoader()
    for kind in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("s3", kind)
    for name in ("endpoints", "partitions", "sdk-default-configuration"):
        loader.load_data(name)
    return loader


async def _find_credentials(session: AioSession) -> Any:  # noqa: ANN401 - botocore's, without types
    """Go through the platform's chain, on a loop of this thread: it reads files wherever it goes.

    Credentials that are fetched at first use are fetched now. Renewing them, every hour or so, reads at most one
    small file on the loop of the daemon.
    """
    credentials = await session.get_credentials()
    if credentials is not None:
        await credentials.get_frozen_credentials()
    return credentials


async def _open_client(session: AioSession, location: S3Location, options: StoreOptions) -> Any:  # noqa: ANN401 - likewise
    plain = location.endpoint is not None and location.endpoint.startswith("http://")
    region = location.region or session.get_config_variable("region") or _DEFAULT_REGION
    context = session.create_client(
        "s3",
        region_name=region,
        endpoint_url=location.endpoint,
        verify=False if plain else None,
        config=_config(location, options),
    )
    return await context.__aenter__()


def _config(location: S3Location, options: StoreOptions) -> AioConfig:
    if location.path_style is None:
        style = "auto" if location.endpoint is None else "path"
    else:
        style = "path" if location.path_style else "virtual"
    return AioConfig(
        http_session_cls=SingleRequestSession,
        user_agent=f"replicad/{__version__}",
        connector_args={"keepalive_timeout": _IDLE_SECONDS},
        signature_version="s3v4",
        connect_timeout=options.connect_timeout_seconds,
        read_timeout=options.read_timeout_seconds,
        max_pool_connections=options.concurrency,
        retries={"mode": "standard", "total_max_attempts": 1},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": style, "payload_signing_enabled": False},
    )


def _sign_with_md5(params: dict[str, Any], **_: object) -> None:
    """Send Content-MD5 with a batch of deletions: S3 wants some checksum there, and this is the one all stores know."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
    params["context"].pop("checksum", None)  # the SDK's own choice, CRC32, is refused by older stores


def _url(location: S3Location) -> str:
    endpoint = f"?endpoint={location.endpoint}" if location.endpoint is not None else ""
    return f"s3://{location.bucket}{endpoint}"
