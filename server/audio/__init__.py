"""Decodes wire audio to samples."""
