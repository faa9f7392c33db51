"""Autoregressive models: log p(x) is a sum of conditionals, exactly."""

from gdm_core.models.autoregressive import (  # noqa: F401
    conditional_gated_pixel_cnn,
    eonade,
    fvsbn,
    gated_pixel_cnn,
    image_transformer,
    independent_bernoulli,
    made,
    markov_chain,
    mixture_of_bernoullis,
    multiscale_pixel_rnn,
    nade,
    pixel_cnn,
    pixel_cnn_plus_plus,
    pixel_rnn,
    rnade,
    wavenet,
)
