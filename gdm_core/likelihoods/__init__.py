"""Which number, of which kind: exact, bound, estimate."""

from gdm_core.likelihoods.annealing_report import (
    AnnealingReport,
    annealing_report,
    annealing_report_steps,
    why_not_over_images,
)
from gdm_core.likelihoods.likelihood import Likelihood, bits_per_dimension, likelihood
from gdm_core.likelihoods.log_partition import LogPartition, log_partition

__all__ = [
    "AnnealingReport", "Likelihood", "LogPartition", "annealing_report", "annealing_report_steps",
    "bits_per_dimension", "likelihood", "log_partition", "why_not_over_images",
]  # fmt: skip
