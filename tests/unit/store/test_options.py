from __future__ import annotations

import pytest

from replicad.store.options import StoreOptions


@pytest.mark.parametrize(
    "wrong",
    [
        {"connect_timeout_seconds": 0},
        {"read_timeout_seconds": -1},
        {"min_bytes_per_second": 0},
        {"attempts": 0},
        {"concurrency": 0},
        {"part_bytes": (5 << 20) - 1},
    ],
)
def test_impossible_numbers(wrong: dict[str, int]) -> None:
    """A limit that could not work is refused by its name."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StoreOptions(**wrong)  # type: ignore[arg-type]


def test_secrets_are_not_shown() -> None:
    """Credentials are not part of what an options object prints."""
    shown = repr(StoreOptions(access_key_id="AKIAEXAMPLE", secret_access_key="hush", session_token="token1"))  # noqa: S106
    assert "AKIAEXAMPLE" not in shown
    assert "hush" not in shown
    assert "token1" not in shown
