"""Parts that at least two models share: causal convolutions, pixel distributions, sampling in raster order."""
