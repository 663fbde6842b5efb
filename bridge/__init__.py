"""The WebSocket bridge: each WebSocket is relayed to one `Transcribe` stream. The server makes all decisions."""
