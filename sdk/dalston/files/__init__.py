"""Transcription of whole files."""
