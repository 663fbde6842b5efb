"""Where sessions are kept: Postgres rows, S3 objects, the local spool, and the interceptor that records into them."""
