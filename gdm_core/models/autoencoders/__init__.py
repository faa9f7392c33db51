"""Autoencoders with a prior over their codes: log p(x) is bounded from below."""
