"""Values and rules that several packages share: ids, tenants, credentials, transcripts, errors. No input, no output."""
