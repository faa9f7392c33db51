"""From uploads to verdicts without the web: scores in any company, polarity, rates, maps, tables and the CSV."""

from __future__ import annotations

import csv
import io
import threading

import pytest
import torch

from dashboard import images, scoring
from dashboard.figures.anomalies import score_histogram
from dashboard.gallery import Card, Shown, gallery
from dashboard.scoring import ALL, AS_GIVEN, IF_SUSPECT, Picture, ScoreBook, Subject, judge, sight
from dashboard.verdict_tables import csv_text, order, table
from gdm_core.anomaly import light, map_images, normalise_map, score_images, smallest_p
from gdm_core.data import to_picture
from gdm_core.storage import load_model
from tests.stores import tiny_model

FORM = (1, 4, 4), 17


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Subject:
    stored = load_model(tiny_model(tmp_path_factory.mktemp("model")))
    return scoring.subject("tiny/1", "models:/tiny/1", stored, threading.Lock())


def pictures(count: int, seed: int = 0) -> list[Picture]:
    stored = torch.randint(0, 17, (count, 1, 4, 4), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return scoring.example_pictures(stored, 17, "noise", [FORM])


def png(image: torch.Tensor) -> bytes:
    return images.png(to_picture(image.double() / 16))


def test_examples_and_uploads_of_the_models_own_format_come_through_unchanged():
    stored = torch.randint(0, 17, (3, 1, 4, 4)).to(torch.uint8)
    made = scoring.example_pictures(stored, 17, "x", [FORM])
    read, problems = scoring.read_pictures([(f"{i}.png", png(x)) for i, x in enumerate(stored)], [FORM])
    assert not problems and [p.name for p in made] == ["x 1", "x 2", "x 3"]
    for i in range(3):
        assert torch.equal(made[i].stored[FORM], stored[i]) and torch.equal(read[i].stored[FORM], stored[i])


def test_scores_are_the_same_alone_and_in_company_bit_for_bit(model):
    scorer, many = model.scorers[0], pictures(9)
    together = ScoreBook().scores(model, scorer, sight(model, many))
    for i in (0, 4, 8):
        alone = ScoreBook().scores(model, scorer, sight(model, [many[i]]))
        assert torch.equal(alone, together[i : i + 1])
    book = ScoreBook()
    book.scores(model, scorer, sight(model, many[3:6]))
    assert torch.equal(book.scores(model, scorer, sight(model, many)), together)
    assert torch.equal(together, score_images(model.stored.model, scorer, sight(model, many).x))


def test_a_book_runs_each_image_through_the_model_once(model, monkeypatch):
    ran = []
    monkeypatch.setattr(scoring, "score_images", lambda m, s, x: ran.append(len(x)) or score_images(m, s, x))
    book, many, reported = ScoreBook(), pictures(9), []
    book.scores(model, model.scorers[0], sight(model, many[:5]), reported.append)
    book.scores(model, model.scorers[0], sight(model, many), reported.append)
    assert sum(ran) == 9 and sum(reported) == 5 + 9
    book.scores(model, model.scorers[1], sight(model, many))
    assert sum(ran) == 18


def test_a_book_is_bounded(model):
    book = ScoreBook(limit=4)
    first = book.scores(model, model.scorers[0], sight(model, pictures(9)))
    assert len(book._known) == 4 and torch.equal(book.scores(model, model.scorers[0], sight(model, pictures(9))), first)


def test_brightness_is_the_librarys(model):
    seen = sight(model, pictures(5))
    expected = light(normalise_map(map_images(model.stored.model, seen.x), model.calibration.map_scale))
    assert torch.equal(ScoreBook().brightness(model, seen), expected)


def test_polarity(model):
    dark = model.calibration.mean_image.round().mul(16).to(torch.uint8)  # as near to the mean image as it gets
    given = scoring.example_pictures(torch.stack([dark, 16 - dark]), 17, "x", [FORM])
    seen = sight(model, given, AS_GIVEN)
    assert seen.suspect == (False, True) and seen.inverted == (False, False)
    turned = sight(model, given, IF_SUSPECT)
    assert turned.inverted == (False, True) and torch.equal(turned.x[0], turned.x[1])
    assert torch.equal(turned.x[0], seen.x[0]) and turned.digests[0] == turned.digests[1]
    assert sight(model, given, ALL).inverted == (True, True)


def test_a_usual_rate_can_flag_something(model):
    assert model.calibration.count == 19
    assert scoring.usual_rate([model]) == smallest_p(19) == 0.05
    assert scoring.usual_rate([]) == 0.01


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2, 0.33, 0.5])
def test_the_cut_is_where_flagging_begins(model, rate):
    scores = torch.cat([torch.linspace(-40, 60, 400, dtype=torch.float64), model.calibration.scores_of("likelihood")])
    judged = judge(model, model.scorers[0], scores, rate)
    cut = scoring.cut(judged.calibration_scores, rate)
    assert torch.equal(judged.flagged, scores > cut)


def test_below_the_smallest_rate_there_is_no_cut(model):
    assert scoring.cut(model.calibration.scores_of("likelihood"), 0.049) is None


def test_main_score_where_none_of_the_chosen_ones_applies(model):
    assert [s.name for s in model.chosen_scorers([])] == [model.scorers[0].name] == ["likelihood"]
    assert [s.name for s in model.chosen_scorers(["peak", "critic"])] == ["peak"]
    assert [s.name for s in model.chosen_scorers(["critic"])] == ["likelihood"]


def judged_noise(model: Subject, rate: float = 0.1) -> tuple:
    many = pictures(6)
    seen = sight(model, many)
    scores = [ScoreBook().scores(model, scorer, seen) for scorer in model.scorers[:2]]
    return many, seen, [judge(model, s, values, rate) for s, values in zip(model.scorers, scores, strict=False)]


def test_table_is_sorted_and_complete(model):
    many, seen, judged = judged_noise(model)
    pngs = [str(i).encode() for i in range(6)]
    frame = table(many, pngs, judged[:1])
    assert sorted(frame.index) == list(range(6)) and frame["p-value"].is_monotonic_increasing
    assert [frame["image"][i] for i in range(6)] == [picture.name for picture in many]
    assert frame["score"].to_list() == [float(judged[0].scores[i]) for i in order(judged[0])]
    assert [frame["as seen"][i] for i in range(6)] == [images.data_address(png) for png in pngs]
    both = table(many, pngs, judged)
    assert [c for c in both.columns if " · " in c] == [one.column for one in judged]


def test_csv_holds_every_number_in_full(model):
    many, seen, judged = judged_noise(model)
    text = csv_text(many, {model.uri: seen}, judged, 0.1, "p-value at most the rate")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 12
    for row in rows:
        one = judged[[j.scorer.name for j in judged].index(row["scorer"])]
        i = [picture.name for picture in many].index(row["image"])
        assert float(row["score"]) == float(one.scores[i]) and float(row["p_value"]) == float(one.p[i])
        assert row["flagged"] == ("flagged" if float(row["p_value"]) <= float(row["rate"]) else "not flagged")
        assert (row["model"], row["data_set"], row["calibration_images"]) == ("models:/tiny/1", "digits", "19")


def test_csv_names_are_no_formulas(model):
    many, _, _ = judged_noise(model)
    bad = [Picture("=cmd()", p.thumbnail, p.stored, p.size) for p in many[:1]]
    seen = sight(model, bad)
    judged = judge(model, model.scorers[0], ScoreBook().scores(model, model.scorers[0], seen), 0.1)
    assert "\n'=cmd()," in csv_text(bad, {model.uri: seen}, [judged], 0.1, "x")


def test_heat_maps_are_black_where_not_lit():
    brightness = torch.tensor([[0.0, 1e-9], [0.5, 1.0]])
    colours = images.heat_map(brightness)
    assert colours.shape == (3, 2, 2) and not colours[:, 0, 0].any()
    luminance = torch.tensor([0.2126, 0.7152, 0.0722], dtype=colours.dtype) @ colours.flatten(1)
    assert (luminance.diff() > 0.05).all()  # a pixel that is just lit can be told from one that is not
    grey = torch.full((1, 2, 2), 0.5)
    over = images.heat_overlay(grey, brightness)
    assert torch.allclose(over[:, 0, 0], over[0, 0, 0].expand(3)) and not torch.allclose(over[0, 1, 1], over[2, 1, 1])


def test_pictures_are_enlarged_without_blur():
    from PIL import Image

    image = torch.rand(1, 8, 8).mul(16).round().div(16)
    picture = Image.open(io.BytesIO(images.image_png(image, 100)))
    assert picture.size == (96, 96) and len(picture.getcolors()) == len(image.mul(255).round().unique())
    assert images.thumbnail(Image.new("L", (8, 6))).size == (192, 144)
    assert images.thumbnail(Image.new("L", (800, 600))).size == (192, 144)


def test_animations_hold_every_frame():
    from PIL import Image

    frames = torch.linspace(0, 1, 7).view(7, 1, 1, 1).expand(7, 1, 8, 8)
    moving = Image.open(io.BytesIO(images.animation(frames, 64)))
    assert (moving.n_frames, moving.size, moving.info["loop"]) == (7, (64, 64), 0)


def test_histogram_marks_every_upload(model):
    many, _, judged = judged_noise(model)
    names = [picture.name for picture in many]
    figure = score_histogram(judged[0].calibration_scores, judged[0].scores, judged[0].flagged, names, "score", 30.0)
    assert sum(figure.data[0].y) == 19
    assert sorted(x for trace in figure.data[1:] for x in trace.x) == sorted(judged[0].scores.tolist())


def test_foreign_names_are_escaped():
    card = Card([Shown(b"", '"><script>', 8)], "<img src=x onerror=alert(1)>", ["<b>"], True, "flagged")
    page = gallery([card])
    assert "<script>" not in page and "<img src=x" not in page and "<b>" not in page and "flagged" in page
