"""Energy-based models: log p(x) is known up to one constant, log Z."""

from gdm_core.models.energy import (  # noqa: F401
    boltzmann_machine,
    dbm,
    dbn,
    deep_energy,
    gaussian_rbm,
    helmholtz_machine,
    label_rbm,
    rbm,
)
