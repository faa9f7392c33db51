"""Autoregressive models: log p(x) is a sum of conditionals, exactly."""

from gdm_core.models.autoregressive import independent_bernoulli, nade, pixel_cnn  # noqa: F401
