"""replicad beside its peers: the same work, one run, one machine."""
