"""The table of a simulated year, and what it would have cost."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tests.simulate.year_time import DAY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulate.year_plan import Month, Outcome, Plan

POLL_SECONDS = 5.0
"""`handover_poll_interval`: how often the owner looks whether somebody asks for the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """A provider's list prices, in dollars. Deleting is free with all of them, and so is sending to them."""

    name: str
    gb_month: float
    million_writes: float  # PUT, POST, LIST
    million_reads: float  # GET, HEAD
    received_gb: float  # to the Internet
    source: str

    def bill(self, *, gb_months: float, writes: float, reads: float) -> float:
        """Return dollars."""
        return gb_months * self.gb_month + writes / 1e6 * self.million_writes + reads / 1e6 * self.million_reads


PRICES = (
    Prices(
        name="AWS S3 Standard, us-east-1",
        gb_month=0.023,
        million_writes=5.0,
        million_reads=0.4,
        received_gb=0.09,
        source="aws.amazon.com/s3/pricing shows no figures to a program; these are as devnotes.tech, "
        '"Understanding AWS S3 Pricing: A Complete Cost Breakdown with Examples", and deepeshsoni.com/archives/256 '
        "(storage) quote them",
    ),
    Prices(
        name="Cloudflare R2",
        gb_month=0.015,
        million_writes=4.5,
        million_reads=0.36,
        received_gb=0.0,
        source="developers.cloudflare.com/r2/pricing, as cloudflare/cloudflare-docs has it in "
        "src/content/docs/r2/pricing.mdx, revision 07ec87d",
    ),
    Prices(
        name="Tigris",
        gb_month=0.02,
        million_writes=5.0,
        million_reads=0.5,
        received_gb=0.0,
        source="tigrisdata.com/pricing, as api-evangelist/tigris-data has it of 2026-06-20",
    ),
)
"""Read on 2026-11-21 in stored copies of these pages. Free allowances and rounding to whole units are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a month costs at one provider."""

    storage: float
    requests: float
    looks: float  # for a successor

    @property
    def total(self) -> float:
        """Return dollars."""
        return self.storage + self.requests + self.looks


def bill(outcome: Outcome, prices: Prices) -> Bill:
    """Return the mean monthly bill, in dollars, of 30 days."""
    days = sum(month.days for month in outcome.months)
    months = days / 30
    count = _requests(outcome)
    return Bill(
        storage=prices.bill(gb_months=sum(one.gb_months for one in outcome.months) / months, writes=0, reads=0),
        requests=prices.bill(gb_months=0, writes=(count["put"] + count["list"]) / months, reads=count["get"] / months),
        looks=prices.bill(gb_months=0, writes=0, reads=30 * DAY_SECONDS / POLL_SECONDS),
    )


def _requests(outcome: Outcome) -> dict[str, int]:
    return {
        verb: sum(month.traffic.requests[verb] for month in outcome.months) for verb in ("put", "get", "list", "delete")
    }


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return everything that was found."""
    return {
        "seed": outcome.plan.seed,
        "days": outcome.plan.days,
        "months": [_month(month) for month in outcome.months],
        "happened": dict(outcome.happened),
        "said": dict(outcome.said),
        "most_requests_of_a_restore": outcome.most_requests,
        "most_bytes": outcome.most_bytes,
        "lost_commits": outcome.lost_commits,
        "bills": {one.name: asdict(bill(outcome, one)) | {"total": bill(outcome, one).total} for one in PRICES},
    }


def _month(month: Month) -> dict[str, Any]:
    traffic = month.traffic
    return {
        "days": month.days,
        "commits": month.commits,
        "wal_bytes": month.wal_bytes,
        "objects": month.objects,
        "stored_bytes": month.stored_bytes,
        "gb_months": month.gb_months,
        "database_bytes": month.database_bytes,
        "requests": dict(traffic.requests),
        "sent_bytes": traffic.sent_bytes,
        "received_bytes": traffic.received_bytes,
        "restores": month.restores,
    }


def table(outcome: Outcome) -> Iterator[str]:
    """Yield the table of months, as Markdown."""
    names = ("days", "commits", "database", "WAL read", "sent", "objects", "stored", "PUT", "GET", "LIST", "DELETE")
    yield f"| {' | '.join(names)} | restores checked |"
    yield f"|---|{'---:|' * len(names)}"
    day = 0
    for month in outcome.months:
        yield _row(f"{day + 1} to {day + month.days}", month)
        day += month.days
    totals = _requests(outcome)
    cells = [
        "**all**",
        f"{sum(month.commits for month in outcome.months):,}",
        "",
        _size(sum(month.wal_bytes for month in outcome.months)),
        _size(sum(month.traffic.sent_bytes for month in outcome.months)),
        "",
        f"at most {_size(outcome.most_bytes)}",
        *(f"{totals[verb]:,}" for verb in ("put", "get", "list", "delete")),
        f"{sum(month.restores for month in outcome.months):,}",
    ]
    yield f"| {' | '.join(cells)} |"


def _row(name: str, month: Month) -> str:
    requests = month.traffic.requests
    cells = [
        name,
        f"{month.commits:,}",
        _size(month.database_bytes),
        _size(month.wal_bytes),
        _size(month.traffic.sent_bytes),
        f"{month.objects:,}",
        _size(month.stored_bytes),
        *(f"{requests[verb]:,}" for verb in ("put", "get", "list", "delete")),
        f"{month.restores:,}",
    ]
    return f"| {' | '.join(cells)} |"


def bills(outcome: Outcome) -> Iterator[str]:
    """Yield the table of bills, as Markdown."""
    yield "| a month, at list prices | storage | requests | a look every 5 s | all |"
    yield "|---|---:|---:|---:|---:|"
    for prices in PRICES:
        found = bill(outcome, prices)
        parts = f"${found.storage:.4f} | ${found.requests:.3f} | ${found.looks:.3f}"
        yield f"| {prices.name} | {parts} | ${found.total:.2f} |"


def sources() -> Iterator[str]:
    """Yield what each price is and where it was found."""
    for one in PRICES:
        line = (
            f"- {one.name}: ${one.gb_month} a GB-month, ${one.million_writes:.2f} a million PUT and LIST, "
            f"${one.million_reads:.2f} a million GET, ${one.received_gb:g} a GB over the Internet ({one.source})."
        )
        yield _filled(line, indent="  ")


def document(outcome: Outcome, *, command: str, seconds: float, revision: str) -> str:
    """Return docs/year.md."""
    return "\n".join(_lines(outcome, command=command, seconds=seconds, revision=revision)) + "\n"


def _lines(outcome: Outcome, *, command: str, seconds: float, revision: str) -> Iterator[str]:
    plan = outcome.plan
    yield from ("# A simulated year", "", "<!-- Made by the command below; do not edit. -->", "")
    yield from ("```console", f"$ {command}", "```", "")
    yield from (f"{plan.days} days, seed {plan.seed}, revision {revision}, done in {seconds:.0f} s.", "")
    yield from (_what(plan), "", "## Storage and requests", "")
    yield from table(outcome)
    yield from ("", _legend(), "", "## The bill", "")
    yield from bills(outcome)
    yield from ("", _about_bills(outcome), "")
    yield from sources()
    yield from ("", "## What happened", "")
    yield from (f"- {what}: {count:,}" for what, count in sorted(outcome.happened.items()))
    yield f"- commits that went with a disk before they were durable: {outcome.lost_commits}"
    yield f"- requests of the largest restore that was checked: {outcome.most_requests}"
    yield from ("", "What replicad said meanwhile, as warnings and errors:", "")
    said = {what: count for what, count in sorted(outcome.said.items()) if ": " in what}
    yield from (f"- `{what}`: {count:,}" for what, count in said.items())
    if not said:
        yield "- nothing"


_WHAT = (
    """
    The application is a small one: {commits:g} commits on a working day, most of them between 8 and 18 o'clock, a fifth
    of that on Sundays, none on days {first} to {last}. Notes are written, changed and deleted, visitors log in; there
    is a clean-up each night, an import of {rows:,} rows in one transaction every {imports} days, a `VACUUM` every
    {vacuums}, a new column every {columns}, and most of it is deleted every {purges}. It is redeployed onto an empty
    disk {redeploys:g} times a week, and killed {crashes:g} times a week: between two requests or at one of them (before
    it, after it, or half-way through a deletion), on the same disk or an empty one.
    """,
    """
    SQLite, the database file, its WAL, the folder that is the bucket, and all that happens between the two are real:
    replicad boots, follows, ships, takes snapshots, rolls up and deletes as the daemon does, with {kept}, and defaults
    for the rest. The clock is simulated.
    """,
    """
    Checked, as time went by: moments within the window, to the millisecond; each snapshot that the rules promise; a
    preserved state; the newest state, behind each crash too; each of them restored and compared with what the
    application had, by all its rows, and where an image was at hand page for page. Every day: that nothing is stored
    for long that belongs to nothing, and that what is stored has a bound. What is promised is worked out apart from
    replicad's code.
    """,
)


def _what(plan: Plan) -> str:
    rhythm, settings = plan.rhythm, plan.settings
    names = ("pitr_window", *(name for name in settings if name.startswith("keep_")))
    values = {
        "commits": rhythm.commits_a_day,
        "first": rhythm.holiday[0],
        "last": rhythm.holiday[1] - 1,
        "rows": rhythm.import_rows,
        "imports": rhythm.import_days,
        "vacuums": rhythm.vacuum_days,
        "columns": rhythm.schema_days,
        "purges": rhythm.purge_days,
        "redeploys": plan.redeploys_a_week,
        "crashes": plan.crashes_a_week,
        "kept": ", ".join(f"`{name}: {settings[name]}`" for name in names),
    }
    return "\n\n".join(_filled(part.format(**values)) for part in _WHAT)


def _filled(text: str, *, indent: str = "") -> str:
    whole = " ".join(text.split())
    return textwrap.fill(whole, 120, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _legend() -> str:
    return """\
*Database*, *objects* and *stored* as of the last day. *WAL read*: page images that were committed. Requests are those
of the daemon, its starts and restores included; without those of the checks, and without the look for a successor:
the bill adds that. A LIST counts for each 1,000 rows, a DELETE for each 1,000 keys."""


def _about_bills(outcome: Outcome) -> str:
    days = sum(month.days for month in outcome.months)
    received = sum(month.traffic.received_bytes for month in outcome.months) / days * 30
    dollars = received / 1e9 * PRICES[0].received_gb
    return f"""\
The mean of the year, for 30 days; no free allowance is deducted, nothing is rounded up. *A look every 5 s* is not from
the run: it is one GET each `handover_poll_interval`, all the time. What starts, roll-ups and retention read is
{_size(received)} a month: free within a region of AWS, and at R2 and Tigris; over the Internet it would be
${dollars:.2f} at AWS. Prices as of stored copies of these pages, read on 2026-11-21:"""


def _size(size_bytes: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return (
                f"{size_bytes / scale:.3g} {unit}" if size_bytes < 1000 * scale else f"{size_bytes / scale:,.0f} {unit}"
            )
    return f"{size_bytes:.0f} B"
