"""Adversarial models: samples without a likelihood."""

from gdm_core.models.adversarial import dcgan  # noqa: F401
