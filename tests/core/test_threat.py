"""Budgets in text and the ball of allowed images."""

import pytest
import torch

from robustdml.errors import BudgetError
from robustdml.threat import (
    NORMS,
    TOLERANCE,
    ThreatModel,
    format_eps,
    norm_of,
    parse_eps,
    parse_eps_list,
)

IMAGES = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), (" 8 / 255 ", 8 / 255), ("0.03", 0.03), ("1e-3", 0.001), ("1", 1.0), ("255/255", 1.0)],
)
def test_parse_eps_reads_fractions_and_decimals(text, value):
    assert parse_eps(text) == value


@pytest.mark.parametrize("text", ["abc", "", "/", "8/", "/255", "1/0", "1/2/3", "8%"])
def test_parse_eps_refuses_what_is_no_number_and_shows_how_to_write_one(text):
    with pytest.raises(BudgetError, match="is not a number: write a fraction such as 8/255") as caught:
        parse_eps(text)
    assert f"'{text}'" in str(caught.value)


@pytest.mark.parametrize("text", ["0", "0/255", "8", "-1/255", "-0.1", "1.0001", "256/255", "nan", "inf", "-inf"])
def test_parse_eps_refuses_what_is_outside_of_the_range_and_names_grey_levels(text):
    with pytest.raises(BudgetError, match="eight grey levels are written 8/255") as caught:
        parse_eps(text)
    assert f"eps {text} is outside (0, 1]" in str(caught.value)


def test_parse_eps_list_sorts_and_drops_repeats():
    assert parse_eps_list("8/255, 2/255,0.5,2/255,,16/510") == (2 / 255, 8 / 255, 0.5)


@pytest.mark.parametrize("text", ["", " , ", ","])
def test_parse_eps_list_refuses_an_empty_list(text):
    with pytest.raises(BudgetError, match="no eps given"):
        parse_eps_list(text)


def test_parse_eps_list_refuses_one_bad_part():
    with pytest.raises(BudgetError, match="eps '8;255'"):
        parse_eps_list("2/255,8;255")


@pytest.mark.parametrize(
    ("eps", "text"),
    [(8 / 255, "8/255"), (1 / 255, "1/255"), (1.0, "255/255"), (0.03, "0.03"), (0.5 / 255, "0.00196078"), (0.5, "0.5")],
)
def test_format_eps_writes_grey_levels_where_they_are_whole(eps, text):
    assert format_eps(eps) == text


def test_format_eps_of_grey_levels_reads_back_as_the_same_budget():
    budgets = [levels / 255 for levels in range(1, 256)]
    assert [parse_eps(format_eps(eps)) for eps in budgets] == budgets


@pytest.mark.parametrize("eps", [-0.001, 1.001, 8.0, float("nan"), float("inf")])
def test_threat_model_refuses_a_radius_outside_of_the_range(eps):
    with pytest.raises(BudgetError, match=r"outside \[0, 1\]"):
        ThreatModel(eps)


def test_threat_model_refuses_other_norms():
    with pytest.raises(BudgetError, match="norm 'l3' is not supported: known: linf, l2, l1, l0"):
        ThreatModel(0.1, norm="l3")


def test_projection_clips_each_pixel_to_the_ball_and_to_the_range():
    clean = torch.tensor([0.5, 0.5, 0.5, 0.02, 0.98, 0.0]).view(1, 1, 2, 3)
    sent = torch.tensor([0.9, 0.1, 0.55, -1.0, 2.0, 0.05]).view(1, 1, 2, 3)
    expected = torch.tensor([0.6, 0.4, 0.55, 0.0, 1.0, 0.05]).view(1, 1, 2, 3)
    assert torch.allclose(ThreatModel(0.1).project(sent, clean), expected)


@pytest.mark.parametrize("eps", [0.0, 1e-4, 8 / 255, 0.3, 1.0])
def test_a_projected_image_is_allowed_and_projecting_again_changes_nothing(eps):
    threat = ThreatModel(eps)
    once = threat.project(IMAGES + 3 * torch.randn(IMAGES.shape), IMAGES)
    assert threat.allows(once, IMAGES).all()
    assert torch.equal(threat.project(once, IMAGES), once)


def test_projection_leaves_allowed_images_alone():
    threat = ThreatModel(0.1)
    allowed = threat.project(IMAGES + 0.1 * torch.randn(IMAGES.shape), IMAGES) * 0.5 + IMAGES * 0.5
    assert torch.equal(threat.project(allowed, IMAGES), allowed)


def test_eps_zero_allows_the_clean_image_only():
    threat = ThreatModel(0.0)
    assert torch.equal(threat.project(torch.rand_like(IMAGES), IMAGES), IMAGES)
    assert threat.allows(IMAGES, IMAGES).all()
    moved = IMAGES.clone()
    moved[:, 0, 0, 0] = (moved[:, 0, 0, 0] - 0.01).abs()
    assert not threat.allows(moved, IMAGES).any()


def test_distance_is_the_largest_absolute_change_of_each_image():
    sent = IMAGES.clone()
    sent[1, 2, 3, 3] -= 0.25
    sent[1, 0, 0, 0] += 0.125
    sent[3, 1, 0, 2] += 0.5
    assert ThreatModel(0.1).distance(sent, IMAGES).tolist() == pytest.approx([0, 0.25, 0, 0.5, 0])


def test_allows_judges_each_image_for_itself():
    clean = torch.full((5, 1, 2, 2), 0.95)
    sent = clean.clone()
    sent[1] += 0.04  # fine
    sent[2, 0, 1, 1] -= 0.11  # beyond the radius in one pixel
    sent[3] += 0.06  # within the radius, beyond white
    sent[4] -= 0.1 + TOLERANCE / 2  # rounding
    assert ThreatModel(0.1).allows(sent, clean).tolist() == [True, True, False, False, True]


def test_allows_refuses_pixels_below_black():
    clean = torch.full((1, 1, 2, 2), 0.02)
    assert not ThreatModel(0.1).allows(clean - 0.05, clean).any()


def test_allows_refuses_pixels_that_are_not_numbers():
    sent = IMAGES.clone()
    sent[2, 0, 0, 0] = torch.nan
    assert ThreatModel(1.0).allows(sent, IMAGES).tolist() == [True, True, False, True, True]


SIZES = {"linf": 0.1, "l2": 0.4, "l1": 1.5, "l0": 3}


@pytest.mark.parametrize("norm", NORMS)
def test_projection_lands_on_the_border_and_leaves_alone_what_is_inside(norm):
    threat = ThreatModel(SIZES[norm], norm)
    moved = IMAGES + 2 * torch.rand(IMAGES.shape, generator=torch.Generator().manual_seed(2)) - 1
    sent = threat.project(moved, IMAGES)
    assert threat.allows(sent, IMAGES).all()
    assert not threat.allows(moved.clamp(0, 1), IMAGES).any()
    assert threat.distance(sent, IMAGES).tolist() == pytest.approx([SIZES[norm]] * 5, rel=1e-4)
    torch.testing.assert_close(threat.project(sent, IMAGES), sent)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_projection_is_the_nearest_point_of_the_ball(norm):
    """No point between the projection and any other point of the ball is nearer (the variational inequality)."""
    random = torch.Generator().manual_seed(3)
    clean, delta = torch.full((1, 3, 4, 4), 0.5), 0.3 * torch.randn(1, 3, 4, 4, generator=random)
    threat = ThreatModel(0.5, norm)
    nearest = threat.project((clean + delta).clamp(0, 1), clean) - clean
    for _ in range(200):
        other = torch.randn(1, 3, 4, 4, generator=random)
        other *= 0.5 / norm_of(other, norm)
        assert float(((delta.clamp(-0.5, 0.5) - nearest) * (other - nearest)).sum()) <= 1e-5


def test_l0_counts_pixels_and_keeps_those_that_change_most():
    clean = torch.full((1, 3, 2, 2), 0.5)
    moved = clean.clone()
    moved[0, :, 0, 0] += torch.tensor([0.1, 0.2, 0.3])
    moved[0, 1, 1, 1] -= 0.4
    moved[0, 2, 0, 1] += 0.05
    assert float(norm_of(moved - clean, "l0")) == 3
    sent = ThreatModel(1, "l0").project(moved, clean)
    assert (sent != clean).nonzero().tolist() == [[0, 1, 1, 1]]


def test_without_a_budget_only_the_range_of_pixels_binds():
    threat = ThreatModel(None, "l2")
    moved = IMAGES + 0.7
    assert threat.project(moved, IMAGES).equal(moved.clamp(0, 1))
    assert threat.allows(1 - IMAGES, IMAGES).all()
    assert not threat.allows(moved, IMAGES).any()


def test_budgets_are_written_with_their_norm():
    assert [ThreatModel(8 / 255).text, ThreatModel(0.5, "l2").text, ThreatModel(None, "l2").text] == [
        "8/255",
        "L2 0.5",
        "any size",
    ]
