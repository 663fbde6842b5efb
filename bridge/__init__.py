"""The WebSocket door: one WebSocket in, one `Transcribe` stream out, and nothing decided in between."""
