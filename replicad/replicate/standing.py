"""What an instance may be to a database."""

from __future__ import annotations

from enum import Enum


class Standing(Enum):
    """What this instance is to the database."""

    NEWCOMER = "newcomer"
    OWNER = "owner"
    HANDING_OVER = "handing over"
    RETIRED = "handed over"
    FENCED = "fenced"
