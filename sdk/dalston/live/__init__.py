"""Live transcription: the audio, the session that takes it, and those that take its place."""
