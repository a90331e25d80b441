"""replicad keeps SQLite alive where disks don't last."""

__version__ = "0.1.0"
