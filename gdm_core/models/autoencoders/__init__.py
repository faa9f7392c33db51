"""Autoencoders with a prior over their codes: log p(x) is bounded from below."""

from gdm_core.models.autoencoders import vae  # noqa: F401
