"""Batch jobs: claiming them, and doing one after the other, window by window."""
