"""Values that several packages share and none of them stores or transports: ids, tenants, transcripts, errors."""
