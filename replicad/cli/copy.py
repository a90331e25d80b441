"""`replicad copy`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from replicad.cli.flags import command
from replicad.config import Section

if TYPE_CHECKING:
    from replicad.cli.invocation import Invocation

_DAMAGED = 2


@command(
    settings=(Section.REPLICA, Section.STORE, "upload_concurrency", "log_level", "log_format"),
    examples=(
        "replicad copy file:///mnt/disk/replica",
        "replicad copy 's3://second-bucket/app?endpoint=https://s3.example.com&region=auto' --verify",
        "replicad copy file:///mnt/disk/replica --name jobs --dry-run --json",
    ),
    required=("replica",),
)
@click.argument("destination", metavar="DESTINATION-URL")
@click.option(
    "--verify",
    is_flag=True,
    help="Read every object on both sides, those that were there before too, and compare the bytes. [default: sizes "
    "only, from the listings]",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be copied. [default: off]")
@click.option(
    "--destination-access-key-id-file",
    type=click.Path(dir_okay=False),
    help="A file with the destination's access key. [default: that of its entry in `mirrors`, else the same "
    "credentials as the replica's; example: --destination-access-key-id-file /run/secrets/copy_key_id]",
)
@click.option(
    "--destination-secret-access-key-file",
    type=click.Path(dir_okay=False),
    help="A file with the destination's secret key. [default: as above; example: "
    "--destination-secret-access-key-file /run/secrets/copy_secret_key]",
)
def copy(invocation: Invocation, *, destination: str, **options: object) -> int:
    """Copy a replica to another bucket or folder, or bring a copy up to date.

    All configured databases, or one chosen with --name. Objects that are there already with the same size are not sent
    again, so a copy that was broken off goes on where it was. Each is held against its own hashes on the way. The
    destination can be restored from at any moment, also after a copy that was broken off, and a daemon that is started
    on it goes on with the history. A destination that holds another history is refused (64), and nothing in it is ever
    replaced or deleted. An encrypted replica is copied as it is stored, and the key is needed to prove that (12). Ends
    with 2 when objects are damaged: they were left out, and are named.
    """
    invocation.start_logging(answers_itself=True)
    # Imported here: `replicad copy --help` needs neither store nor history.
    from replicad.cli.copying import Order, carry_out  # noqa: PLC0415

    key_id, secret = (options[f"destination_{name}_file"] for name in ("access_key_id", "secret_access_key"))
    order = Order(
        destination=destination,
        verify=bool(options["verify"]),
        dry_run=bool(options["dry_run"]),
        access_key_id_file=None if key_id is None else str(key_id),
        secret_access_key_file=None if secret is None else str(secret),
    )
    answer, text, is_sound = asyncio.run(carry_out(invocation, order))
    invocation.answer(answer, text)
    return 0 if is_sound else _DAMAGED
