"""One session from its first audio to its last event, free of transport and storage."""
