"""Hidden units that are seldom on: a penalty on the distance between their mean activity q and a target p.

    q_j <- 9/10 q_j + 1/10 (mean over the batch of p(h_j = 1 | v)),    Delta c_j += cost (p - q_j)

The gradient of the cross-entropy - p log q - (1 - p) log(1 - q) with respect to a unit's input is q - p; it moves the
hidden biases alone, which rule how often a unit is on.

References: "Sparse Deep Belief Net Model for Visual Area V2" (Lee, Ekanadham and Ng, 2008), which moves the biases
alone for a squared penalty; "A Practical Guide to Training Restricted Boltzmann Machines" (Hinton, 2010), section 11,
which has the cross-entropy and the running mean, and moves the weights too.
"""

from __future__ import annotations

from torch import Tensor

MEMORY = 0.9


class SparsityTarget:
    """The penalty of one machine: `target` is p, `cost` its weight against the likelihood's gradient."""

    def __init__(self, target: float, cost: float) -> None:
        self.target, self.cost = target, cost
        self.activity: Tensor | None = None  # q, (hidden,)

    def add_to(self, ascent: dict[str, Tensor], h_data: Tensor) -> None:
        """Take note of the activities (N, hidden) and add the penalty's part to the gradient, in place."""
        mean = h_data.mean(0)
        self.activity = mean if self.activity is None else mean.lerp(self.activity, MEMORY)
        ascent["hidden_bias"].add_(self.target - self.activity, alpha=self.cost)

    def state_dict(self) -> dict[str, Tensor | None]:
        return {"activity": self.activity}

    def load_state_dict(self, state: dict[str, Tensor | None], like: Tensor) -> None:
        """Take over a state, on the device of `like`."""
        activity = state["activity"]
        self.activity = None if activity is None else activity.to(like.device, copy=True)
