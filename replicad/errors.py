"""Every deliberate exception: the class says what the caller can do, its docstring is the message.

A message says what happened, where, what was expected and found, and the next step. The exit code
is part of the command line's contract (docs/cli.md); 1 stands for whatever has no code of its own.
"""

from __future__ import annotations

import inspect
from typing import ClassVar


class ReplicadError(Exception):
    """{what}"""

    exit_code: ClassVar[int] = 1

    def __init__(self, **details: object) -> None:
        self.details = details
        super().__init__(inspect.cleandoc(type(self).__doc__ or "").replace("\n", " ").format_map(details))


# --- what the user asked for or configured ---------------------------------------------------


class UsageError(ReplicadError):
    """{where}: expected {expected}, found {found}. {hint}"""

    exit_code = 64


class TargetExists(ReplicadError):
    """{path} exists already and was left as it is. Give --force to replace it (the old file is kept until the
    new one is proven), or --output with another path."""

    exit_code = 64


class DatabaseUnusable(ReplicadError):
    """{path} cannot be replicated: expected {expected}, found {found}. {hint}"""


class DatabaseBusy(DatabaseUnusable):
    """{path} cannot be replicated now: expected {expected}, found {found}. {hint}"""


class DaemonUnreachable(ReplicadError):
    """No running replicad answers at the control socket {path} ({found}). Start `replicad run`, or give the
    socket of the one that runs with --control-socket."""


class DaemonAbsent(DaemonUnreachable):
    """No replicad runs at the control socket {path} ({found}). Start `replicad run`, or give the socket of the
    one that runs with --control-socket."""


class NotReady(ReplicadError):
    """{what} was not ready within {timeout_seconds:g} s: {found}. {hint}"""


# --- the object store ------------------------------------------------------------------------


class StoreUnreachable(ReplicadError):
    """The store {store} could not be reached: {operation} failed with {found}. Nothing was changed; check the
    endpoint, the network and the store's own status, then try again."""

    exit_code = 13


class StoreRefused(ReplicadError):
    """The store {store} refused {operation}: {found}. Check that the bucket exists and that the credentials allow
    this; `replicad doctor` tells which permission is missing."""

    exit_code = 13


class ConditionalWritesUnsupported(StoreRefused):
    """The store {store} has no conditional writes ({found}), so it cannot decide between two owners by itself. Set
    `fencing: advisory`, or choose a store that honours `If-None-Match`."""


class ObjectMissing(ReplicadError):
    """The object {key} is not in the store {store}."""

    exit_code = 2


class ObjectExists(ReplicadError):
    """The object {key} exists already in the store {store}, so it was not created."""


class CreateUndecided(ReplicadError):
    """The store {store} did not say whether {key} was created ({found}). Read it back to find out."""


class OtherHistory(ReplicadError):
    """{destination} holds another history than {source}: {found}. Nothing that it holds was replaced; give
    another bucket or folder, or look at both with `replicad log`."""

    exit_code = 64


# --- what is stored --------------------------------------------------------------------------


class NoBackup(ReplicadError):
    """There is no backup of {database} in {store}: the listing was read and holds no history. Check the replica URL
    and the database's name; for a first start give --if-replica-exists."""

    exit_code = 10


class OwnedByAnother(ReplicadError):
    """{database} is owned by another instance ({found}). {hint}"""

    exit_code = 11


class WrongKey(ReplicadError):
    """{what} cannot be used with the encryption that is configured: expected {expected}, found {found}. {hint}"""

    exit_code = 12


class KeyNotGiven(WrongKey):
    """{what} is encrypted with the key {expected}, and {found} was given. Give it too, behind the others: the first
    encrypts, all decrypt."""


class TargetOutsideWindow(ReplicadError):
    """{database} cannot be restored to {target}: {found}. The nearest instants that can be reached are
    {nearest}."""

    exit_code = 14


class HistoryGap(ReplicadError):
    """{database} cannot be restored to {target}: the history has a gap, {found}. The nearest instants that can be
    reached are {nearest}."""

    exit_code = 14


class Damaged(ReplicadError):
    """{what} is damaged: {where}: expected {expected}, found {found}. It was not used; restore to an instant that does
    not need it, or from a copy of the bucket."""

    exit_code = 2


class NewerFormat(ReplicadError):
    """{what} was written in format version {found}, and this replicad reads up to version {expected}. Upgrade
    replicad."""

    exit_code = 2


class ProofFailed(ReplicadError):
    """{what} is not proven equal to the source: {check} expected {expected}, found {found}. The file was not put in
    place."""

    exit_code = 2


class ClockDiffers(ReplicadError):
    """The clocks of this machine and of the store {store} differ by {difference}, so it is not known how old anything
    is, and nothing was deleted. Set the clock that is wrong; until then history is kept longer than it was asked to."""


# --- this machine ----------------------------------------------------------------------------


class NoSpace(ReplicadError):
    """{path}: needs {needed_bytes} bytes, {free_bytes} are free. Make room, or choose another folder."""


class LocalDiffers(ReplicadError):
    """{path} holds another state than the history in {store}, and an application may have it open, so it was not
    replaced. Stop the application, then start it behind `replicad run -- COMMAND`, or move the file away."""


class FileUnusable(ReplicadError):
    """{path} could not be {operation}: {found}. {hint}"""


class TargetBusy(ReplicadError):
    """{path} cannot be replaced now: {found}. Stop what uses it, then try again; nothing was changed."""

    exit_code = 11


class AlreadyRunning(ReplicadError):
    """{path} is locked by {found}: another replicad on this machine has the same database. Stop that one first;
    two must never replicate one database."""

    exit_code = 11


class CommandNotFound(ReplicadError):
    """The command {command} was not found ({found}). Check its spelling and PATH; with `replicad run` the
    application's command stands after `--`."""

    exit_code = 127  # as a shell has it


class CommandNotExecutable(ReplicadError):
    """The command {command} cannot be executed: {found}. Check its permissions (chmod +x), its first line (#!) and
    that it was built for this machine."""

    exit_code = 126  # as a shell has it


class Stopped(ReplicadError):
    """Stopped by {signal} during {stage}; the application was not started."""

    exit_code = 143  # 128 + SIGTERM; for another signal the caller adds its number


class HookFailed(ReplicadError):
    """The {hook} command ended with status {status}; the application was not started. Its output is above: mend it,
    and start again."""


class FinalFlushFailed(ReplicadError):
    """The final flush failed: {pending} of {database} did not reach {store} ({found}). They are still in the database
    file on this disk; start replicad again on the same disk to send them."""

    exit_code = 75
