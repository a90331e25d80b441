"""The machine underneath: clock, files, threads, file events, processes and signals, and nothing else."""
