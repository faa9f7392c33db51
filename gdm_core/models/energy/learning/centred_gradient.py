"""The centred gradient of a restricted Boltzmann machine: no layer's mean gets in the way of the weights.

With offsets mu of the visibles and lambda of the hidden units (W is (hidden, D), <.> data minus model)

    Delta W = <(h - lambda) (v - mu)'>,    Delta b = <v> - Delta W' lambda,    Delta c = <h> - Delta W mu.

That is the gradient of the machine written in v - mu and h - lambda, expressed in the parameters of the ordinary one,
so energies, annealing and saved weights know nothing of it. It is a positive definite matrix times the ordinary
gradient: the stationary points are the same, and what is learnt no longer depends on which colour is called 1.

References: "Deep Boltzmann Machines and the Centering Trick" (Montavon and Mueller, 2012); "How to Center Deep
Boltzmann Machines" (Melchior, Fischer and Wiskott, 2016), whose moving averages over the data these offsets are. Ours:
the averages start at the first batch's means, and not at 1/2.
"""

from __future__ import annotations

from torch import Tensor

RATE = 0.01  # how far the offsets move towards a batch's means


class Offsets:
    """mu (D,) and lambda (hidden,), moving averages of v and of p(h = 1 | v) over the training images."""

    def __init__(self, visible: Tensor | None = None, hidden: Tensor | None = None) -> None:
        self.visible, self.hidden = visible, hidden

    def follow(self, v_data: Tensor, h_data: Tensor) -> None:
        """Move towards the means of a batch (N, D), (N, hidden)."""
        v, h = v_data.mean(0), h_data.mean(0)
        if self.visible is None:
            self.visible, self.hidden = v, h
        self.visible, self.hidden = self.visible.lerp(v, RATE), self.hidden.lerp(h, RATE)

    def centre(self, ascent: dict[str, Tensor]) -> None:
        """Turn the ordinary gradient into the centred one, in place: rank-one corrections, no pass over the data."""
        weight, visible, hidden = ascent["weight"], ascent["visible_bias"], ascent["hidden_bias"]
        weight.addr_(self.hidden, visible, alpha=-1).addr_(hidden, self.visible, alpha=-1)
        visible.sub_(self.hidden @ weight)
        hidden.sub_(weight @ self.visible)

    def state_dict(self) -> dict[str, Tensor | None]:
        return {"visible": self.visible, "hidden": self.hidden}

    def load_state_dict(self, state: dict[str, Tensor | None], like: Tensor) -> None:
        """Take over a state, on the device of `like`."""
        for name, value in state.items():
            setattr(self, name, None if value is None else value.to(like.device, copy=True))
