"""A history in the store becomes a database file again: fetched, put together, proven, put in place."""
