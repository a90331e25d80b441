"""botocore's description of S3, cut down in memory to what this package calls.

botocore reads 2 MB of JSON to learn S3, most of it documentation and operations never called here; held
as Python objects that is 12 MB of a daemon that should be small. This loader reads the same files from
the installed botocore (nothing is copied or written) and decodes only the pieces that are needed. All
other services are loaded as botocore does it: a platform's credential chain may call STS or SSO.

Answers are the one place where the description is changed and not merely shortened. Of each row of a listing
only key, size and time are kept, and the time stays text: botocore parses times with dateutil, which took half of
the CPU time of a listing. Of the answer to a get only the body, its length and its range are kept: looking for forty
more headers, two of them times, took a fifth of what the request costs here.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import msgspec
from botocore.loaders import JSONFileLoader, Loader

OPERATIONS = (
    "PutObject",
    "GetObject",
    "DeleteObject",
    "DeleteObjects",
    "ListObjectsV2",
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "HeadBucket",  # botocore itself asks with it for a bucket's region
)

_CREDENTIAL_SERVICES = ("s3", "sts", "oidc", "portal.sso", "signin")
_LISTED_MEMBERS = ("Key", "Size", "LastModified")
_GOT_MEMBERS = ("Body", "ContentLength", "ContentRange")

_Raws = dict[str, msgspec.Raw]
_JSON = dict[str, Any]


class TrimmedLoader(Loader):  # type: ignore[misc] # botocore has no types
    """A botocore loader whose S3 is small; where files are looked for, and the errors, are the original's."""

    def __init__(self) -> None:
        super().__init__(file_loader=_TrimmedFiles())

    def load_service_model(self, service_name: str, type_name: str, api_version: str | None = None) -> _JSON:
        """Return the description of one service; `type_name` is botocore's name for a kind of file.

        For S3 neither the folders of all 400 services are looked through to find out that it exists, nor is the
        file of additions read: it changes the type of a field that is not used here.
        """
        if service_name != "s3":
            described: _JSON = super().load_service_model(service_name, type_name, api_version)
            return described
        version = api_version or self.determine_latest_version("s3", type_name)
        found: _JSON = self.load_data(f"s3/{version}/{type_name}")
        return found


class _TrimmedFiles(JSONFileLoader):  # type: ignore[misc] # botocore has no types
    """Reads botocore's JSON files into plain dicts, which take half the room of its ordered ones."""

    def load_file(self, file_path: str) -> _JSON | None:
        """Return the content of the file at `file_path` plus .json or .json.gz, or None when there is none."""
        plain, packed = Path(file_path + ".json"), Path(file_path + ".json.gz")
        if plain.is_file():
            content = plain.read_bytes()
        elif packed.is_file():
            content = gzip.decompress(packed.read_bytes())
        else:
            return None
        if plain.parts[-3:-2] == ("s3",) and plain.name == "service-2.json":
            return _trim_service(content)
        if plain.name == "endpoints.json":
            return _trim_endpoints(content)
        whole: _JSON = msgspec.json.decode(content)
        return whole


def _trim_service(content: bytes) -> _JSON:
    service = msgspec.json.decode(content, type=_Raws)
    described = msgspec.json.decode(service["operations"], type=_Raws)
    operations = {name: _decode(described[name]) for name in OPERATIONS}
    shapes = _reachable(msgspec.json.decode(service["shapes"], type=_Raws), operations)
    _narrow_answers(shapes)
    rest = ("metadata", "version", "clientContextParams")  # small; botocore insists on the documentation of the last
    kept = {name: msgspec.json.decode(service[name]) for name in rest if name in service}
    return {**kept, "operations": operations, "shapes": shapes}


def _reachable(described: _Raws, operations: _JSON) -> _JSON:
    """Return the shapes that the operations refer to, directly or through other shapes."""
    wanted = [name for operation in operations.values() for name in _references(operation)]
    shapes: _JSON = {}
    while wanted:
        name = wanted.pop()
        if name not in shapes:
            shapes[name] = _decode(described[name])
            wanted += _references(shapes[name])
    return shapes


def _references(piece: object) -> list[str]:
    if isinstance(piece, dict):
        name = piece.get("shape")
        inner = [found for value in piece.values() for found in _references(value)]
        return [name, *inner] if isinstance(name, str) else inner
    if isinstance(piece, list):
        return [found for value in piece for found in _references(value)]
    return []


def _narrow_answers(shapes: _JSON) -> None:
    got = shapes["GetObjectOutput"]
    got["members"] = {name: got["members"][name] for name in _GOT_MEMBERS}
    row = shapes["Object"]
    row["members"] = {name: row["members"][name] for name in _LISTED_MEMBERS} | {"LastModified": {"shape": "ListedAt"}}
    shapes["ListedAt"] = {"type": "string"}


def _trim_endpoints(content: bytes) -> _JSON:
    endpoints: _JSON = msgspec.json.decode(content, type=_Raws)
    partitions = msgspec.json.decode(endpoints.pop("partitions"), type=list[_Raws])
    kept = []
    for partition in partitions:
        services = msgspec.json.decode(partition.pop("services"), type=_Raws)
        few = {name: _decode(services[name]) for name in _CREDENTIAL_SERVICES if name in services}
        kept.append({**{name: _decode(raw) for name, raw in partition.items()}, "services": few})
    return {**{name: _decode(raw) for name, raw in endpoints.items()}, "partitions": kept}


def _decode(raw: msgspec.Raw) -> Any:  # noqa: ANN401 - any JSON value
    return _without_documentation(msgspec.json.decode(raw))


def _without_documentation(piece: object) -> object:
    if isinstance(piece, dict):
        return {
            name: _without_documentation(value)
            for name, value in piece.items()
            if not (name == "documentation" and isinstance(value, str))
        }
    return [_without_documentation(value) for value in piece] if isinstance(piece, list) else piece
