"""What Postgres holds: the schema, and every statement that reads or writes it."""
