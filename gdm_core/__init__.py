"""Deep generative models of four families behind one contract, with likelihoods that say what they are."""

import gdm_core.models  # noqa: F401  (registers every model)
from gdm_core.anomaly import scorers_for
from gdm_core.contract import Batch, GenerativeModel, TrainingConfig, capabilities
from gdm_core.likelihoods import Likelihood, LogPartition, likelihood, log_partition
from gdm_core.registry import build_model, describe_model, list_models
from gdm_core.training import train

__all__ = [
    "Batch", "GenerativeModel", "Likelihood", "LogPartition", "TrainingConfig", "build_model", "capabilities",
    "describe_model", "likelihood", "list_models", "log_partition", "scorers_for", "train",
]  # fmt: skip
