"""Looking whether what is stored is there, whole, and enough: `replicad verify`, and the drill of the daemon."""
