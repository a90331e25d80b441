"""Decisions about stored history, all pure: what a listing holds, how to restore, when to snapshot or checkpoint."""
