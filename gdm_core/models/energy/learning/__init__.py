"""How energy models learn: the updates, and what they are made of."""
