"""The command `dalston`. Its modules are imported by the command line only, never by the package."""
