"""One stream's life, free of transport and storage."""
