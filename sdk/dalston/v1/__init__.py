"""Generated from `proto/dalston/v1` by `make generate`."""
