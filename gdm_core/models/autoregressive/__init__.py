"""Autoregressive models: log p(x) is a sum of conditionals, exactly."""
