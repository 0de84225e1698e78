"""Budgets in text and the ball of allowed images."""

import pytest
import torch
from pydantic import TypeAdapter

from robustdml.errors import BudgetError
from robustdml.threat import (
    NORMS,
    TOLERANCE,
    ThreatModel,
    format_eps,
    norm_of,
    parse_budget,
    parse_budgets,
    parse_eps,
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


def test_budgets_are_sorted_and_repeats_dropped():
    found = parse_budgets("8/255, 2/255,0.5,2/255,,16/510")
    assert found == (ThreatModel(2 / 255), ThreatModel(8 / 255), ThreatModel(0.5))


@pytest.mark.parametrize("text", ["", " , ", ","])
def test_no_budget_is_refused(text):
    with pytest.raises(BudgetError, match="no eps given"):
        parse_budgets(text)


def test_one_bad_budget_is_refused():
    with pytest.raises(BudgetError, match="eps '8;255'"):
        parse_budgets("2/255,8;255")


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (8 / 255, "8/255"),
        (1 / 255, "1/255"),
        (1.0, "255/255"),
        (0.03, "0.03"),
        (0.5 / 255, "0.5/255"),
        (1.25 / 255, "1.25/255"),
        (2.5 / 255, "0.00980392"),
        (0.5, "0.5"),
    ],
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


@pytest.mark.parametrize(
    ("text", "channels", "written"),
    [
        (
            "0.01/normalised",
            (0.01 * 0.229, 0.01 * 0.224, 0.01 * 0.225),
            "0.01/normalised (0.584, 0.571, 0.574 of 255)",
        ),
        (" 0.1/normalised ", (0.0229, 0.0224, 0.0225), "0.1/normalised (5.840, 5.712, 5.738 of 255)"),
        ("1/255:2/255:2/255", (1 / 255, 2 / 255, 2 / 255), "1/255:2/255:2/255"),
        ("4/255:4/255:4/255", None, "4/255"),
        ("8/255", None, "8/255"),
    ],
)
def test_budgets_per_channel_are_read_and_written_both_ways(text, channels, written):
    """0.01 after normalisation is .00224 to .00229 in pixels."""
    threat = parse_budget(text)
    assert threat.text == written
    if channels is None:
        assert threat.channels is None
    else:
        assert threat.channels == pytest.approx(channels)
        assert threat.eps == max(threat.channels)
    stored = TypeAdapter(ThreatModel)
    assert stored.validate_json(stored.dump_json(threat)) == threat


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1/255:2/255", "has 2 channels: write three budgets"),
        ("1/255:0:2/255", r"eps 0 is outside \(0, 1\]"),
        ("x/normalised", "is not a number after normalisation: write it as 0.01/normalised"),
        ("5/normalised", r"is outside \(0, 1\] in pixels"),
        ("nan/normalised", r"is outside \(0, 1\] in pixels"),
        ("0/normalised", r"is outside \(0, 1\] in pixels"),
    ],
)
def test_what_is_no_budget_per_channel_is_refused(text, sentence):
    with pytest.raises(BudgetError, match=sentence):
        parse_budget(text)
    with pytest.raises(BudgetError, match=r"must be three above 0, in L-infinity, the largest of them 0\.1"):
        ThreatModel(0.1, channels=(0.1, 0.2, 0.05))
    with pytest.raises(BudgetError, match="in L-infinity"):
        ThreatModel(0.1, "l2", channels=(0.1, 0.1, 0.05))


def test_one_eps_for_all_says_why_it_cannot_be_one_per_channel():
    with pytest.raises(BudgetError, match=r"'0.01/normalised' is a budget per channel.* --arithmetic published"):
        parse_eps("0.01/normalised")


def test_budgets_are_sorted_and_without_repeats():
    found = parse_budgets("8/255,0.01/normalised, 2/255,8/255, 0.01/normalised")
    assert [threat.text for threat in found] == ["0.01/normalised (0.584, 0.571, 0.574 of 255)", "2/255", "8/255"]


def test_each_channel_has_its_own_ball():
    threat = ThreatModel.per_channel((0.1, 0.02, 0.05))
    sent = threat.project(IMAGES + torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(4)), IMAGES)
    for channel, radius in enumerate((0.1, 0.02, 0.05)):
        expected = IMAGES[:, channel]
        moved = IMAGES + torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(4))
        expected = moved[:, channel].clamp(expected - radius, expected + radius).clamp(0, 1)
        assert torch.allclose(sent[:, channel], expected)
    assert threat.allows(sent, IMAGES).all()
    assert not threat.allows(ThreatModel(0.1).project(1 - IMAGES, IMAGES), IMAGES).any()
    one = IMAGES.clone()
    one[2, 1, 0, 0] += 0.03 if one[2, 1, 0, 0] < 0.5 else -0.03
    assert threat.allows(one, IMAGES).tolist() == [True, True, False, True, True]


def test_which_balls_lie_within_which():
    normalised, small, large = parse_budget("0.01/normalised"), ThreatModel(0.00224), ThreatModel(0.0023)
    assert normalised.holds(small)
    assert large.holds(normalised)
    assert large.holds(small)
    assert not normalised.holds(ThreatModel(0.00226))
    assert not ThreatModel(0.00226).holds(normalised)
    assert normalised.holds(normalised)
    assert not normalised.holds(ThreatModel(0.001, "l2"))
    assert not normalised.holds(ThreatModel(None))
    assert (normalised.inner_limit, large.inner_limit) == pytest.approx((0.00224 + TOLERANCE, 0.0023 + TOLERANCE))
