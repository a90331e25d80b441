"""Configuration: one table of settings; flags over variables over a YAML file over defaults.

`settings.py` is the table that everything else is made from: YAML keys, `REPLICAD_*` variables, flags,
validation, and docs/configuration.md.
"""

from __future__ import annotations

from replicad.config.load import Loaded, load
from replicad.config.model import Address, DatabaseSettings, MirrorSettings, Settings
from replicad.config.secret import Secret
from replicad.config.setting import Kind, Section, Setting
from replicad.config.settings import SETTINGS

__all__ = [
    "SETTINGS",
    "Address",
    "DatabaseSettings",
    "Kind",
    "Loaded",
    "MirrorSettings",
    "Secret",
    "Section",
    "Setting",
    "Settings",
    "load",
]
