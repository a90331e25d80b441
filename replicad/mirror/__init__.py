"""Keeping the objects of a replica at a second place: once, by command, or all the time, by the daemon."""
