"""Wire audio to samples."""
