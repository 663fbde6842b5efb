"""Who may call: what a call needs, what a secret allows, and how often."""
