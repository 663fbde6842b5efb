"""Logs and metrics, configured alike in every process."""
