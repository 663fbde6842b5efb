"""From memory and spool to Postgres and S3: while a session runs, and when it ends."""
