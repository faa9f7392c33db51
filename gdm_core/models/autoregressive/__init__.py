"""Autoregressive models: log p(x) is a sum of conditionals, exactly."""

from gdm_core.models.autoregressive import independent_bernoulli, markov_chain, nade, pixel_cnn  # noqa: F401
