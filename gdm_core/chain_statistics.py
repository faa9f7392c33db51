"""How quickly Markov chains forget where they were: the integrated autocorrelation time of a number along them.

    tau = 1 + 2 sum_{t >= 1} rho_t,    rho_t = Cov(y_s, y_{s + t}) / Var(y),

in steps: a mean over T steps is as good as one over T / tau independent draws. The sum is cut at the smallest window
M >= 5 tau(M), beyond which it adds noise only (Sokal, "Monte Carlo methods in statistical mechanics", 1997). Means are
taken over all chains together, so that chains that never leave their own corner count as slow.
"""

from __future__ import annotations

import torch
from torch import Tensor

WINDOW = 5


def autocorrelation(series: Tensor) -> Tensor:
    """rho_t of series (T, chains), t = 0..T - 1, (T,) float64; NaN where nothing ever changes."""
    if series.dim() != 2 or len(series) < 2:
        raise ValueError(f"series must have shape (steps, chains) with at least 2 steps, got {tuple(series.shape)}")
    y = series.double() - series.double().mean()
    size = len(y)
    spectrum = torch.fft.rfft(y, n=2 * size, dim=0)
    covariance = torch.fft.irfft(spectrum.abs().square(), dim=0)[:size].sum(1)
    covariance = covariance / (torch.arange(size, 0, -1, device=y.device) * y.shape[1])
    return covariance / covariance[0] if covariance[0] > 0 else torch.full_like(covariance, torch.nan)


def autocorrelation_time(series: Tensor) -> float:
    """tau of series (T, chains) in steps, at least 1; infinite where nothing ever changes.

    Found to be too small where the chains are shorter than some tens of tau: read it as a lower limit there.
    """
    rho = autocorrelation(series)
    if rho.isnan().any():
        return float("inf")
    tau = 2 * rho.cumsum(0) - 1
    enough = torch.arange(len(tau), device=tau.device) >= WINDOW * tau
    window = int(enough.to(torch.uint8).argmax()) if enough.any() else len(tau) - 1
    return max(1.0, tau[window].item())
