"""The command `dalston`. The SDK itself never imports this package."""
