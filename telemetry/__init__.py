"""Logs and metrics, set up alike in every process."""
