"""Chains that have left the data for the edge: said on the pages that show their samples and completions."""

from __future__ import annotations

import pytest
import torch

from dashboard import loading, saturation
from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_dashboard_live import page, words

NAME = "digits-gaussian_rbm/1"
SAID = "The chains saturate: "


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saturation")
    with using(new_store(folder)):
        yield register_model(folder, "gaussian_rbm")


@pytest.fixture
def bursting(address):
    """The model with weights scaled up until its pixels stick to 0 or 1; afterwards as it was."""
    model = loading.model(address).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.weight.normal_(generator=torch.Generator().manual_seed(0)).mul_(300)
        model.hidden_bias.zero_()
    yield model
    model.load_state_dict(before)


@pytest.mark.parametrize("name", ["samples", "completion"])
def test_a_chain_that_saturates_is_said(bursting, name: str):
    said = words(page(name, models=NAME, n="9"))
    assert SAID in said and "more of the drawn pixels are at 0 or 1 than of the data's" in said


@pytest.mark.parametrize("name", ["samples", "completion"])
def test_nothing_is_said_of_chains_among_greys(address, name: str):
    assert SAID not in words(page(name, models=NAME, n="9"))


def test_nothing_is_said_where_the_data_are_at_the_edge_themselves(bursting, monkeypatch):
    monkeypatch.setattr(saturation, "_edge_of_data", lambda *rest: 0.95)
    assert SAID not in words(page("samples", models=NAME, n="9"))
