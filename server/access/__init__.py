"""Authentication, authorisation and rate limits of calls."""
