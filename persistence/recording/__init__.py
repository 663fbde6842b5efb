"""A running call: the interceptor, and what it records while the call runs."""
