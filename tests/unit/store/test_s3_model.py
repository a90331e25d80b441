from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import DataNotFoundError
from botocore.loaders import Loader
from botocore.model import ServiceModel

from replicad.store.s3_model import OPERATIONS, TrimmedLoader

if TYPE_CHECKING:
    from collections.abc import Iterator

GOT_MEMBERS = {"Body", "ContentLength", "ContentRange"}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """What botocore itself says of S3."""
    described: dict[str, Any] = Loader().load_service_model("s3", "service-2")
    return described


@pytest.fixture(scope="module")
def trimmed() -> dict[str, Any]:
    """What is left of it here."""
    return TrimmedLoader().load_service_model("s3", "service-2")


def _documentation(piece: object) -> Iterator[str]:
    if isinstance(piece, dict):
        for name, inner in piece.items():
            if name == "documentation" and isinstance(inner, str):
                yield inner
            yield from _documentation(inner)


def test_every_operation_is_whole(whole: dict[str, Any], trimmed: dict[str, Any]) -> None:
    """Each operation that is called has all its shapes, members and traits, but for most of a get's answer."""
    model, original = ServiceModel(trimmed, "s3"), ServiceModel(whole, "s3")
    assert sorted(model.operation_names) == sorted(OPERATIONS)
    for name in OPERATIONS:
        mine, theirs = model.operation_model(name), original.operation_model(name)
        assert mine.http == theirs.http
        assert mine.http_checksum == theirs.http_checksum
        assert set(mine.input_shape.members) == set(theirs.input_shape.members)
        assert (mine.output_shape is None) == (theirs.output_shape is None)
        if mine.output_shape is not None:
            few = GOT_MEMBERS if name == "GetObject" else set(theirs.output_shape.members)
            assert set(mine.output_shape.members) == few
        assert len(mine.error_shapes) == len(theirs.error_shapes)
    assert trimmed["metadata"] == whole["metadata"]
    assert trimmed["clientContextParams"] == whole["clientContextParams"]


def test_it_is_small(whole: dict[str, Any], trimmed: dict[str, Any]) -> None:
    """A tenth of the description is left, without documentation."""
    assert len(json.dumps(trimmed)) < len(json.dumps(whole)) / 10
    assert list(_documentation({"operations": trimmed["operations"], "shapes": trimmed["shapes"]})) == []


def test_rows_of_listings_are_narrow(trimmed: dict[str, Any]) -> None:
    """Of a listing's row only key, size and time are read, the time as text."""
    members = trimmed["shapes"]["Object"]["members"]
    assert list(members) == ["Key", "Size", "LastModified"]
    assert trimmed["shapes"][members["LastModified"]["shape"]] == {"type": "string"}


def test_endpoints_of_credential_services_stay() -> None:
    """Of the list of endpoints S3 and what a credential chain asks is left, in every partition, unchanged."""
    mine, theirs = TrimmedLoader().load_data("endpoints"), Loader().load_data("endpoints")
    assert [partition["partition"] for partition in mine["partitions"]] == [
        partition["partition"] for partition in theirs["partitions"]
    ]
    for few, all_of_them in zip(mine["partitions"], theirs["partitions"], strict=True):
        assert few["regions"] == all_of_them["regions"]
        for name in ("s3", "sts"):
            assert few["services"].get(name) == all_of_them["services"].get(name)
        assert len(few["services"]) <= 5


@pytest.mark.parametrize(
    "name", ["partitions", "sdk-default-configuration", "_retry", "s3/2006-03-01/endpoint-rule-set-1"]
)
def test_everything_else_is_unchanged(name: str) -> None:
    """Other files, the endpoint rules above all, are what botocore has."""
    assert TrimmedLoader().load_data(name) == Loader().load_data(name)


def test_other_services_are_loaded_as_before() -> None:
    """A service of the credential chain has all its operations."""
    mine, theirs = (loader.load_service_model("sts", "service-2") for loader in (TrimmedLoader(), Loader()))
    assert set(mine["operations"]) == set(theirs["operations"])
    assert set(mine["shapes"]) == set(theirs["shapes"])


def test_missing_files() -> None:
    """What is not there is botocore's own error."""
    with pytest.raises(DataNotFoundError):
        TrimmedLoader().load_data("no-such-file")


def test_customers_model(tmp_path: Path, trimmed: dict[str, Any]) -> None:
    """A description that the user put into their own folder is used, packed or not, as botocore does."""
    loader = TrimmedLoader()
    loader.search_paths.insert(0, str(tmp_path))
    source = Path(Loader.BUILTIN_DATA_PATH, "s3/2006-03-01/service-2.json.gz")
    folder = tmp_path / "s3" / "2006-03-01"
    folder.mkdir(parents=True)
    (folder / "service-2.json").write_bytes(gzip.decompress(source.read_bytes()))
    assert loader.load_data_with_path("s3/2006-03-01/service-2") == (trimmed, str(folder / "service-2"))
