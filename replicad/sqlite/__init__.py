"""SQLite itself, at arm's length: connections that never write, read pins, raw frames, page images."""
