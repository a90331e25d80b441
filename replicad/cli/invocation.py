"""One call of a command: its settings, loaded when asked for, and where its answer goes."""

from __future__ import annotations

import json
import os
import sys
from functools import cached_property
from typing import TYPE_CHECKING

import click

from replicad.config import Loaded, Settings, load
from replicad.config.databases import missing
from replicad.config.settings import BY_NAME
from replicad.config.sources import Rank
from replicad.errors import UsageError
from replicad.observe.scrub import Scrubber

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import TextIO

    from replicad.config import DatabaseSettings


class Invocation:
    """What a command is called with."""

    def __init__(self, *, flags: Mapping[str, str], required: tuple[str, ...], as_json: bool, debug: bool) -> None:
        self._flags = dict(flags)
        self._required = required
        self.as_json = as_json
        self.debug = debug
        if debug:
            self._flags.setdefault("log_level", "debug")

    @cached_property
    def loaded(self) -> Loaded:
        """The settings and their origins.

        Raises:
            UsageError: something about them is wrong.
        """
        return load(flags=self._flags, environ=os.environ, required=self._required)

    def require(self, *names: str) -> None:
        """Load the settings as a command that cannot do without these.

        Raises:
            UsageError: one of them is missing, or anything else is wrong.
        """
        self._required = (*self._required, *names)
        self.__dict__.pop("loaded", None)
        self.loaded  # noqa: B018 - loading is the check

    @property
    def settings(self) -> Settings:
        """The settings in effect."""
        return self.loaded.settings

    def chose(self, name: str) -> bool:
        """Return whether somebody gave a value to this setting; False when it is at its default."""
        given = self.loaded.given.get(name)
        return given is not None and given.rank is not Rank.DEFAULT

    def environment(self) -> dict[str, str]:
        """Return the variables under which another replicad, without any flags, reads the same settings."""
        return {**os.environ, **{BY_NAME[name].variable: text for name, text in self._flags.items()}}

    @property
    def scrubber(self) -> Scrubber:
        """Takes this call's credentials out of texts."""
        return Scrubber(secret.reveal() for secret in self.settings.secrets)

    def control_socket(self) -> Path:
        """Return the control socket of the running replicad.

        Raises:
            UsageError: neither it nor a database to name it after is set.
        """
        socket = self.settings.control_socket
        if socket is None:
            raise missing("control_socket")
        return socket

    def only_database(self) -> DatabaseSettings:
        """Return the one database that a command on a single one means.

        Raises:
            UsageError: several are configured, and none was chosen.
        """
        databases = self.settings.databases
        if len(databases) != 1:
            names = ", ".join(database.name for database in databases)
            raise UsageError(
                where="--database", expected="one database", found=f"several ({names})", hint="Choose one with --name."
            )
        return databases[0]

    def start_logging(self, *, answers_itself: bool = False) -> None:
        """Set up log lines on standard error, as the settings say.

        Args:
            answers_itself: the command tells a person at a terminal all there is to tell, so that log lines would
                say it twice; they are shown there only when a level was asked for.
        """
        from replicad.observe.logging import configure  # noqa: PLC0415 - structlog is slow to import

        settings = self.settings
        configure(
            level="critical"
            if answers_itself and not self.chose("log_level") and sys.stderr.isatty()
            else settings.log_level,
            log_format="json" if self.as_json else settings.log_format,
            scrubber=self.scrubber,
            colors="NO_COLOR" not in os.environ,
        )

    def answer(self, result: Mapping[str, object], text: str, *, stream: TextIO | None = None) -> None:
        """Write the command's result to standard output or another stream: as JSON when asked for, else the text."""
        scrubber = self.scrubber
        if self.as_json:
            click.echo(json.dumps(scrubber.value(dict(result)), indent=2), file=stream)
        else:
            click.echo(scrubber.text(text), file=stream)
