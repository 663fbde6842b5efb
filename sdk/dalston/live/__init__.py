"""Live transcription: audio sources, and sessions that survive lost connections."""
