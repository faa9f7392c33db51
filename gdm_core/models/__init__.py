"""Every model, one file per paper. Importing this registers them all."""

from gdm_core.models import adversarial, autoencoders, autoregressive, energy  # noqa: F401
