"""The table of settings: YAML keys, variables, flags, validation and documentation are made from it.

Every row has a kind (which fixes its unit), an effect and an example; every number has both bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.config.database_settings import CAPTURE, REPLICA, RESTORE, STORE, STORING
from replicad.config.process_settings import OBSERVING, OWNING, RUNNING
from replicad.config.proving_settings import PROVING
from replicad.config.retention_settings import KEEPING

if TYPE_CHECKING:
    from replicad.config.setting import Setting

SETTINGS: tuple[Setting, ...] = (
    *REPLICA,
    *CAPTURE,
    *STORING,
    *RESTORE,
    *KEEPING,
    *STORE,
    *PROVING,
    *OWNING,
    *RUNNING,
    *OBSERVING,
)
BY_NAME = {setting.name: setting for setting in SETTINGS}
