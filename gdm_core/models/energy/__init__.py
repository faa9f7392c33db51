"""Energy-based models: log p(x) is known up to one constant, log Z."""

from gdm_core.models.energy import helmholtz_machine, rbm  # noqa: F401
