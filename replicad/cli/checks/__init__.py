"""What `replicad doctor` looks at, one module per thing; each check says what it found and what to do."""
