"""The daemon: capture, ship, snapshot, own, and the run that holds them together."""
