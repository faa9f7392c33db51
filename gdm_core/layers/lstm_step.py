"""One step of an LSTM whose features are split into one group per colour of the image.

    c' = f * c + i * g,    h = o * tanh(c'),    o, f, i = sigmoid of their gates,  g = tanh of its gate

The four gates of a colour lie together, [o_R f_R i_R g_R  o_G f_G i_G g_G ...], so that a masked layer that computes
gates splits them into colours as it splits features, and a colour's state depends on no later colour's gates.
Reference: Hochreiter and Schmidhuber: Long Short-Term Memory (1997), with the forget gate of Gers et al. (2000).
"""

from __future__ import annotations

from torch import Tensor


def lstm_step(gates: Tensor, cell: Tensor, units: int) -> tuple[Tensor, Tensor]:
    """(h, c') from gates (..., colours * 4 * units) and c (..., colours * units); both shaped as c."""
    gates, cell = gates.unflatten(-1, (-1, 4, units)), cell.unflatten(-1, (-1, units))
    output, forget, enter = gates[..., :3, :].sigmoid().unbind(-2)  # each (..., colours, units)
    cell = forget * cell + enter * gates[..., 3, :].tanh()
    return (output * cell.tanh()).flatten(-2), cell.flatten(-2)


def units_per_colour(channels: int, colours: int) -> int:
    """How many units of an LSTM belong to each colour. Raises ValueError where they cannot be split evenly."""
    if channels < 1 or channels % colours:
        raise ValueError(f"channels must be a multiple of the {colours} colours of the images, got {channels}")
    return channels // colours
