"""Client side of the Dalston real-time transcription service."""
