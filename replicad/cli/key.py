"""`replicad key`."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replicad.cli.flags import command
from replicad.cli.output import columns, size
from replicad.config import Section
from replicad.encryption.keys import KEY_BYTES, EncryptionKey, format_key
from replicad.errors import FileUnusable, TargetExists, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.cli.invocation import Invocation
    from replicad.cli.keys_in_use import Use

ACTIONS = ("new", "id", "list", "retire")
_KEY_ID_DIGITS = 16


@command(
    settings=(Section.REPLICA, Section.STORE, "log_level", "log_format"),
    examples=(
        "replicad key new --output /etc/replicad.key",
        "replicad key id",
        "replicad key list",
        "replicad key retire 1f2e3d4c5b6a7988",
    ),
    required=(),
)
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("key_id", required=False)
@click.option(
    "--output",
    metavar="FILE",
    help="With `new`: the file to write the key to, which must not be there yet; only its owner can read it. "
    "[default: standard output; example: --output /etc/replicad.key]",
)
def key(invocation: Invocation, *, action: str, key_id: str | None, output: str | None) -> None:
    """Make an encryption key, or show which keys a replica needs.

    `new` makes a key. Whoever loses it loses the backup: keep a copy where the bucket's credentials are not.
    `id` shows the ids of the keys that are configured; an id tells nothing of its key. `list` reads the head of
    every object of the replica and shows what needs which key; it needs none itself. `retire KEY_ID` takes
    a key off that nothing needs any more, so that it need not be given again.
    """
    if (key_id is not None) != (action == "retire"):
        expected = "the id of a key behind `retire`, and nothing behind the others"
        raise UsageError(where="key", expected=expected, found=repr(key_id), hint="`replicad key list` shows the ids.")
    if output is not None and action != "new":
        raise UsageError(where="--output", expected="it with `new` only", found=f"key {action}", hint="Leave it out.")
    match action:
        case "new":
            _new(output, as_json=invocation.as_json)
        case "id":
            _show_ids(invocation)
        case "list":
            invocation.require("database", "replica")
            _list(invocation)
        case "retire":
            invocation.require("database", "replica")
            _retire(invocation, _parsed_id(key_id or ""))


def _new(output: str | None, *, as_json: bool) -> None:
    made = EncryptionKey(secrets.token_bytes(KEY_BYTES))
    text = format_key(made.reveal())
    if output is None:  # written as it is: what hides secrets from other answers would hide this one
        click.echo(json.dumps({"id": made.id.hex(), "key": text}, indent=2) if as_json else text)
        return
    path = Path(output)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise TargetExists(path=path) from error
    except OSError as error:
        raise FileUnusable(
            path=path, operation="written", found=error.strerror or repr(error), hint="Choose another --output."
        ) from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    answer = {"id": made.id.hex(), "path": str(path)}
    click.echo(json.dumps(answer, indent=2) if as_json else f"Wrote the key {made.id.hex()} to {path}.")


def _show_ids(invocation: Invocation) -> None:
    keys = invocation.settings.encryption_keys
    ids = [one.id.hex() for one in keys]
    text = "\n".join(
        f"{one}  {'encrypts and decrypts' if number == 0 else 'decrypts'}" for number, one in enumerate(ids)
    )
    invocation.answer({"keys": ids}, text or "No key is configured.")


def _list(invocation: Invocation) -> None:
    from replicad.cli.keys_in_use import find_uses  # noqa: PLC0415 - `key new` needs no store

    invocation.start_logging(answers_itself=True)
    uses = asyncio.run(find_uses(invocation.settings, invocation.only_database()))
    rows = [
        (
            use.name,
            "yes" if use.given else "no",
            "yes" if use.on_ring else "no",
            str(use.objects),
            size(use.stored_bytes),
            str(use.needed),
        )
        for use in uses
    ]
    head = ("KEY", "GIVEN", "DEMANDED", "OBJECTS", "SIZE", "NEEDED")
    invocation.answer({"keys": [_as_json(use) for use in uses]}, columns(head, rows, right=(3, 4, 5)))


def _as_json(use: Use) -> Mapping[str, object]:
    return {
        "id": use.key_id.hex() if use.key_id is not None else None,
        "given": use.given,
        "demanded": use.on_ring,
        "objects": use.objects,
        "stored_bytes": use.stored_bytes,
        "needed_objects": use.needed,
    }


def _retire(invocation: Invocation, key_id: bytes) -> None:
    from replicad.cli.keys_in_use import retire  # noqa: PLC0415 - as above

    invocation.start_logging(answers_itself=True)
    left = asyncio.run(retire(invocation.settings, invocation.only_database(), key_id))
    ids = [one.hex() for one in left]
    invocation.answer(
        {"retired": key_id.hex(), "keys": ids},
        f"The key {key_id.hex()} need not be given any more. Needed: {', '.join(ids)}.",
    )


def _parsed_id(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(text) != _KEY_ID_DIGITS or not found:
        expected = f"a key id of {_KEY_ID_DIGITS} hexadecimal digits"
        raise UsageError(where="retire", expected=expected, found=repr(text), hint="`replicad key list` shows the ids.")
    return found
