"""PixelRNN: its LSTMs against their definitions, what each kind sees, one pixel after another, and that it learns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from gdm_core.contract import Batch, TrainingConfig
from gdm_core.layers.causal_convolution import group_bounds
from gdm_core.layers.diagonal_bilstm import DiagonalBiLSTM, diagonals
from gdm_core.layers.lstm_step import lstm_step
from gdm_core.layers.recurrent_network import RecurrentNetwork
from gdm_core.layers.row_by_row_lstm import RowByRowLSTM
from gdm_core.layers.row_lstm import RowLSTM
from gdm_core.models.autoregressive.multiscale_pixel_rnn import MultiscalePixelRNN
from gdm_core.models.autoregressive.pixel_rnn import PixelRNN
from gdm_core.registry import build_model
from gdm_core.training import train
from tests.autoregressive_cases import Images

KINDS = ["row_by_row", "row_lstm", "diagonal_bilstm"]
every_kind = pytest.mark.parametrize("kind", KINDS)
over_the_image = pytest.mark.parametrize("kind", KINDS[1:])

# --- the LSTMs ---------------------------------------------------------------------------------------------------


def test_one_step_is_torch_s_lstm_cell():
    """Whose gates are ordered enter, forget, new, output."""
    gates, cell = torch.randn(5, 12).double(), torch.randn(5, 3).double()
    output, forget, enter, new = gates.chunk(4, 1)
    theirs = torch.cat([enter, forget, new, output], 1)
    nothing, identity = torch.zeros(12, 3).double(), torch.eye(12).double()
    expected = torch.lstm_cell(theirs, (torch.zeros_like(cell), cell), identity, nothing)
    torch.testing.assert_close(lstm_step(gates, cell, 3), expected)


def test_a_colour_s_state_depends_on_its_own_gates_alone():
    gates, cell = torch.randn(24).double(), torch.randn(6).double()
    slopes = torch.autograd.functional.jacobian(lambda gates: lstm_step(gates, cell, 2)[0], gates)
    owner = torch.arange(6)[:, None] // 2 == torch.arange(24) // 8
    unit = torch.arange(6)[:, None] % 2 == torch.arange(24) % 2
    assert torch.equal(slopes != 0, owner & unit)


def step_of_definition(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """For one colour: gates in the order output, forget, enter, new."""
    output, forget, enter, new = gates.chunk(4, -1)
    cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
    return output.sigmoid() * cell.tanh(), cell


@torch.no_grad()
def test_row_lstm_is_its_definition():
    layer, x = RowLSTM(4, 5, 1).double(), torch.randn(2, 4, 4, 6).double()
    gates, weight = layer.input_to_state(x), layer.state_to_state.unflatten(0, (3, 5))
    h = cell = torch.zeros(2, 6, 5).double()
    for row, found in enumerate(layer(x).unbind(2)):  # found (N, channels, W)
        above, total = nn.functional.pad(h, (0, 0, 1, 1)), gates[:, :, row].transpose(1, 2).clone()
        for column, offset in itertools.product(range(6), range(3)):
            total[:, column] += above[:, column + offset] @ weight[offset]
        h, cell = step_of_definition(total, cell)
        torch.testing.assert_close(found, h.transpose(1, 2))


@torch.no_grad()
@pytest.mark.parametrize("size", [(4, 6), (6, 3), (1, 5), (5, 1)])
def test_diagonal_bilstm_is_its_definition(size):
    """Pixel by pixel from each side, the map from the right one row down."""
    (height, width), layer = size, DiagonalBiLSTM(4, 3, 1).double()
    x = torch.randn(2, 4, *size).double()
    gates = layer.input_to_state(x).unflatten(1, (2, -1))
    expected = torch.zeros(2, 3, *size).double()
    for direction, columns in enumerate([range(width), range(width)[::-1]]):
        before, above = layer.state_to_state[direction].chunk(2)
        nothing = torch.zeros(2, 3).double()
        h, cell = {}, {}
        for row, column in itertools.product(range(height), columns):
            left = (row, column + (1 if direction else -1))
            total = gates[:, direction, :, row, column] + h.get(left, nothing) @ before
            total += h.get((row - 1, column), nothing) @ above
            h[row, column], cell[row, column] = step_of_definition(total, cell.get(left, nothing))
            if row + direction < height:
                expected[:, :, row + direction, column] += h[row, column]
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("size", [(3, 5), (5, 3), (1, 4), (4, 1), (1, 1)])
def test_diagonals_hold_every_pixel_once_from_the_top(size):
    order, sizes = diagonals(*size, torch.device("cpu"))
    places = [(int(i) // size[1], int(i) % size[1]) for i in order[0]]
    assert places == sorted(itertools.product(*map(range, size)), key=lambda place: (sum(place), place))
    assert [sum(place) for place in places] == [d for d, count in enumerate(sizes) for _ in range(count)]
    mirrored = [(int(i) // size[1], size[1] - 1 - int(i) % size[1]) for i in order[1]]
    assert mirrored == places


# --- what it sees ------------------------------------------------------------------------------------------------


def positive(network: nn.Module) -> nn.Module:
    """No two paths cancel, no ReLU is shut and no gate is full: a slope is zero only where there is no path."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_().mul_(0.3).add_(0.01)
        if isinstance(network, RowByRowLSTM):
            network.before.weight.copy_(network.before.weight.cumsum(0))  # a greater value has greater features
    return network.double()


def fields_of(network: nn.Module, shape: tuple) -> dict[tuple, set]:
    """What each value (colour, row, column) sees, by gradients."""
    x = torch.ones(1, *shape).double()
    slopes = torch.autograd.functional.jacobian(lambda x: network(x)[0, ..., 0], x)[:, :, :, 0]
    places = itertools.product(*map(range, shape))
    return {place: {tuple(index) for index in slopes[place].nonzero().tolist()} for place in places}


def everything_before(shape: tuple) -> dict[tuple, set]:
    places = sorted(itertools.product(*map(range, shape)), key=lambda place: (*place[1:], place[0]))
    return {place: set(places[:index]) for index, place in enumerate(places)}


@pytest.mark.parametrize("shape", [(1, 4, 9), (3, 3, 6), (2, 1, 5), (3, 4, 1)])
@pytest.mark.parametrize("kind", ["row_by_row", "diagonal_bilstm"])
def test_every_earlier_value_is_seen_and_no_other(kind, shape):
    model = build_model("pixel_rnn", shape, kind=kind, channels=6, layers=1, kernel_size=3)
    assert fields_of(positive(model.network), shape) == everything_before(shape)


def test_without_its_margin_a_diagonal_lstm_misses_the_last_pixel_of_the_row_above():
    """As published: only pixels at whose place the first convolution reaches it see it in the next row."""
    shape = (1, 4, 9)
    network = positive(RecurrentNetwork("diagonal_bilstm", shape, 1, channels=4, layers=2, kernel_size=3))
    network.margin = 0
    fields, everything = fields_of(network, shape), everything_before(shape)
    for place in everything:
        _, row, column = place
        expected = {(0, row - 1, 8)} if row > 0 and column < 7 else set()
        assert everything[place] - fields[place] == expected and fields[place] <= everything[place]


def receptive_fields_of_row_lstm(shape: tuple, kernel_size: int, layers: int) -> dict[tuple, set]:
    """What each value of a row-LSTM network sees, by following its layers as sets."""
    colours, height, width = shape
    places, reach = list(itertools.product(range(colours), range(height), range(width))), kernel_size // 2

    def earlier(row: int, column: int) -> Iterator[tuple[int, int]]:
        for r, c in itertools.product(range(row - reach, row + 1), range(column - reach, column + reach + 1)):
            if (r, c) < (row, column) and r >= 0 and 0 <= c < width:
                yield r, c

    fields = {}
    for g, row, column in places:
        seen = {(k, r, c) for r, c in earlier(row, column) for k in range(colours)}
        fields[g, row, column] = seen | {(k, row, column) for k in range(g)}
    for _ in range(layers):
        states = {}
        for row, column, g in itertools.product(range(height), range(width), range(colours)):
            own = [fields[k, row, column] for k in range(g + 1)]
            left = [fields[k, row, column - 1] for k in range(colours) if column > 0]
            above = [states.get((k, row - 1, column + d), set()) for k in range(colours) for d in (-1, 0, 1)]
            states[g, row, column] = set().union(*own, *left, *above)
        fields = {
            (g, r, c): fields[g, r, c].union(*(states[k, r, c] for k in range(g + 1))) for g, r, c in places
        }
    return {(g, r, c): set().union(*(fields[k, r, c] for k in range(g + 1))) for g, r, c in places}


@pytest.mark.parametrize("position_bias", [False, True])
@pytest.mark.parametrize(
    ("shape", "kernel_size", "layers"), [((1, 5, 9), 3, 2), ((1, 4, 6), 5, 1), ((3, 3, 5), 3, 1), ((2, 4, 3), 5, 2)]
)
def test_row_lstm_sees_exactly_its_receptive_field(shape, kernel_size, layers, position_bias):
    network = RecurrentNetwork("row_lstm", shape, 1, 6, layers, kernel_size, position_bias)
    assert fields_of(positive(network), shape) == receptive_fields_of_row_lstm(shape, kernel_size, layers)


def test_row_lstm_sees_a_triangle():
    """Above a pixel the field widens by one column a row; beside the triangle lies what it misses."""
    fields = receptive_fields_of_row_lstm((1, 8, 25), 3, 1)
    for up in range(2, 7):
        seen = {column for _, row, column in fields[0, 7, 12] if row == 7 - up}
        assert seen == set(range(12 - up - 2, 12 + up + 1)) | {12 + up}


# --- one pixel after another -------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 3, 4), (2, 3, 1)])
@pytest.mark.parametrize("with_condition", [False, True])
@over_the_image
def test_pixel_by_pixel_equals_all_at_once(kind, with_condition, shape):
    features = 7 if with_condition else 0
    network = RecurrentNetwork(kind, shape, 4, 6, 2, 3, position_bias=True, condition_features=features).double()
    network.place.normal_()
    x, condition = torch.rand(3, *shape).double(), None
    if with_condition:
        condition = torch.randn(3, features, *shape[1:]).double()
        assert not torch.allclose(network(x, condition), network(x, condition + 1))
    incremental, logits = network.incremental(3, condition), network(x, condition)
    for row in range(shape[1]):
        incremental.begin_row()
        for column, colour in itertools.product(range(shape[2]), range(shape[0])):
            found = incremental.logits(column, colour)
            torch.testing.assert_close(found, logits[:, colour, row, column], rtol=0, atol=1e-12)
            incremental.write(x[:, colour, row, column], column, colour)


@every_kind
def test_values_between_levels_count(kind):
    """Levels are numbers, not names: every level changes what follows."""
    model = build_model("pixel_rnn", (1, 1, 2), kind=kind, channels=6, pixels="levels", levels=5)
    x = torch.arange(5)[:, None, None, None] / 4 * torch.tensor([1.0, 0.0])
    assert len(model.logits(x)[:, 0, 0, 1, 0].unique()) == 5


# --- learning ----------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("position_bias", [False, True])
def test_every_parameter_learns(kind, position_bias):
    model = build_model("pixel_rnn", (3, 4, 4), kind=kind, channels=6, position_bias=position_bias)
    model.loss(Batch(torch.randint(2, (8, 3, 4, 4)).float()))["loss"].backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


@every_kind
def test_learns_two_images(kind):
    """Checkerboards of both phases: the first pixel costs log 2, the others nothing."""
    board = (torch.arange(4)[:, None] + torch.arange(5)) % 2
    data = Images(torch.stack([board, 1 - board])[:, None].float().repeat(8, 1, 1, 1))
    model = build_model("pixel_rnn", (1, 4, 5), kind=kind, channels=8, layers=1)
    for _ in train(model, data, TrainingConfig(epochs=25, batch_size=8, learning_rate=2e-2)):
        pass
    with torch.no_grad():
        assert -model.log_prob(data.images).mean().item() == pytest.approx(math.log(2), abs=0.05)


@every_kind
def test_half_precision_gives_finite_gradients(kind):
    model, x = build_model("pixel_rnn", (3, 4, 5), kind=kind), torch.randint(2, (4, 3, 4, 5)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.loss(Batch(x))["loss"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 32}, "channels must be a multiple of the 3 colours"),
        ({"channels": 0}, "0 features cannot be split into 3"),
        ({"kind": "row_by_row", "channels": 0}, "channels and layers must be at least 1"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"kernel_size": 1}, "kernel_size must be odd and at least 3, got 1"),
        ({"kind": "column_lstm"}, "row_by_row, row_lstm, diagonal_bilstm"),
        ({"pixels": "levels", "levels": 1}, "levels must be between 2 and 256"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model("pixel_rnn", (3, 4, 4), **arguments)


@pytest.mark.parametrize(("model", "kinds"), [(PixelRNN, "row_by_row, row_lstm, "), (MultiscalePixelRNN, "row_lstm, ")])
def test_so_is_a_kind_without_the_registry(model, kinds):
    with pytest.raises(ValueError, match=f"kind must be one of {kinds}diagonal_bilstm, got 'column_lstm'"):
        model((1, 4, 4), kind="column_lstm")


def test_colour_groups_are_whole():
    """Gates split into colours as their features do."""
    layer = RowLSTM(12, 6, 3)
    assert layer.input_to_state.out_bounds == group_bounds(24, 3) == [4 * bound for bound in group_bounds(6, 3)]
