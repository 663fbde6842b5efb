"""Decodes media files that strangers send to mono PCM at 16 kHz, in a child process without rights."""
