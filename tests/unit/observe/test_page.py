from __future__ import annotations

from replicad.observe.page import POLICY, render


def test_the_page_shows_the_status() -> None:
    """Values stand beside their names, one table for each database."""
    page = render(
        {
            "version": "1.2.3",
            "store_reachable": True,
            "databases": [{"name": "app.db", "durable_txid": 42, "at": None}],
        },
        ready=True,
        reason="",
    )
    assert "<td>1.2.3</td>" in page
    assert "<th>store reachable</th><td>yes</td>" in page
    assert "<h2>app.db</h2>" in page
    assert "<th>durable txid</th><td>42</td>" in page


def test_the_page_says_why_it_is_not_ready() -> None:
    """What is missing for readiness stands in the heading."""
    assert "not ready: restoring" in render({}, ready=False, reason="restoring")


def test_the_page_runs_nothing() -> None:
    """Names from outside are text, and the policy forbids scripts and foreign content."""
    page = render({"path": "<script>alert(1)</script>", "x": {"<b>": ["<i>"]}}, ready=True, reason="")
    assert "<script>" not in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert "default-src 'none'" in POLICY
