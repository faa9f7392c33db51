"""Energy-based models: log p(x) is known up to one constant, log Z."""

from gdm_core.models.energy import deep_energy, helmholtz_machine, label_rbm, rbm  # noqa: F401
