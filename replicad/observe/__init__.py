"""Observation: log lines and their events, metrics, and the HTTP interface. Knows nothing of what it observes."""
