"""Storing uploaded files: from their bytes to a session with a job."""
