"""What the local disk holds: one directory for each session that is not stored yet."""
