"""Adversarial models: samples without a likelihood."""
