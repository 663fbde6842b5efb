"""What the bucket holds: objects, their keys, and how stored audio is laid out in them."""
