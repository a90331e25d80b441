"""How long each side of a handover waits. Intervals on a monotonic clock; no decision compares two clocks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The beats of owner and newcomer; both sides must be configured alike."""

    poll_seconds: float = 5.0  # the owner looks for a request, and gives a sign of life while it works on one
    newcomer_poll_seconds: float = 1.0  # whoever waits for a change looks this often
    slack_seconds: float = 5.0  # what a round of requests may take on top of the owner's polls
    handover_timeout_seconds: float = 30.0  # without a sign of life; also how long writers are kept out at most
    patience_seconds: float = 300.0  # a newcomer waits no longer for an owner that lives but does not end

    @property
    def silence_seconds(self) -> float:
        """How long after the request an owner that never answered is taken for dead: three of its polls missed."""
        return 3 * self.poll_seconds + self.slack_seconds
