"""Reads recordings as mono samples at 16 kHz, any part of them by itself."""
