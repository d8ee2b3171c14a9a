"""Running moments: what they are, their intervals, and their memory."""

import math

import numpy as np
import pytest
import torch
from conftest import F64, TIGHT
from scipy import stats

from pyrovae.lab.statistics import BLOCKS, Moments


def moments_of(draws, seed=0):
    m = Moments(len(draws), seed)
    for g in draws:
        m.add(g)
    return m


@pytest.mark.parametrize("n", [2, 3, 39, 40, 41, 137, 400])
def test_mean_and_variance_are_those_of_the_sample(n):
    draws = 5 + torch.randn(n, 4, dtype=F64)
    m = moments_of(draws)
    torch.testing.assert_close(m.mean(), draws.mean(0), **TIGHT)
    variance = draws.var(0).sum()
    torch.testing.assert_close(m.variance().value, float(variance), **TIGHT)
    torch.testing.assert_close(m.error(), math.sqrt(float(variance) / n), **TIGHT)
    length2 = max(float(draws.mean(0).square().sum() - variance / n), 0)
    torch.testing.assert_close(m.length().value, math.sqrt(length2), **TIGHT)
    torch.testing.assert_close(m.signal_to_noise().value, math.sqrt(length2 / float(variance)), **TIGHT)
    r = torch.randn(4, dtype=F64)
    off2 = float((draws.mean(0) - r).square().sum() - variance / n)
    torch.testing.assert_close(m.length(r).value, math.sqrt(max(off2, 0)), **TIGHT)
    torch.testing.assert_close(m.length(r, 0.3).value, math.sqrt(max(off2 - 0.09, 0)), **TIGHT)


def test_squared_lengths_have_no_bias_from_noise():
    """Half of the estimates of a length of zero are zero, and the squares of a length of one have the mean one."""
    draws = torch.randn(1000, 20, 3, dtype=F64)
    zero = [moments_of(d).length().value for d in draws]
    share = np.mean([v == 0 for v in zero])
    p = stats.chi2.cdf(3, 3)  # of ‖ḡ‖² under its mean, up to the noise of the variance
    assert abs(share - p) < 0.1
    one = torch.tensor([1.0, 0, 0], dtype=F64)
    squares = np.array([moments_of(d + one).length().value ** 2 for d in draws])
    t = (squares.mean() - 1) / (squares.std() / math.sqrt(len(squares)))
    assert abs(t) < stats.norm.isf(5e-7)  # wrong once in 1e6


def test_intervals_cover_the_truth():
    """95 % intervals of 400 samples hold the truth in at least 90 %: wrong once in 1e4 for a coverage of 94.5 %."""
    truth = torch.tensor([0.3, -0.2, 0.4, 0.1], dtype=F64)
    scale = torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=F64)
    variance = float(scale.square().sum())
    held = {"length": 0, "variance": 0, "snr": 0, "off": 0}
    for i in range(400):
        m = moments_of(truth + scale * torch.randn(200, 4, dtype=F64), seed=i)
        length = float(truth.norm())
        for name, found, true in (
            ("length", m.length(), length),
            ("variance", m.variance(), variance),
            ("snr", m.signal_to_noise(), length / math.sqrt(variance)),
            ("off", m.length(2 * truth), length),
        ):
            held[name] += found.low <= true <= found.high
    least = stats.binom.ppf(1e-4 / len(held), 400, 0.945)
    assert all(h >= min(least, 360) for h in held.values()), held
    assert all(h < 400 for h in held.values()), held  # they are no wider than they say


def test_intervals_of_few_draws_lie_about_the_estimate():
    """On average over samples: a resample's variance is not smaller by the mean that it has of its own."""
    middle = []
    for i in range(200):
        found = moments_of(torch.randn(8, 30, dtype=F64), seed=i).variance()
        middle.append((found.low + found.high) / 2 / found.value)
    assert np.mean(middle) == pytest.approx(1, abs=0.06)


def test_without_noise_everything_is_exact():
    g = torch.tensor([3.0, 4.0])
    m = moments_of([g] * 50)
    assert m.variance().ends() == (0, 0, 0)
    assert m.length().ends() == (5, 5, 5)
    assert m.signal_to_noise().value == math.inf
    none = moments_of([torch.zeros(2)] * 50)
    assert none.length().value == 0
    assert math.isnan(none.signal_to_noise().value)


def test_little_noise_about_a_large_mean_is_not_cancelled():
    noise = torch.randn(1000, 3)
    m = moments_of(1e4 + 0.1 * noise)  # float32, whose squares hold 8 digits
    expected = float((1e4 + 0.1 * noise).double().var(0).sum())
    assert m.variance().value == pytest.approx(expected, rel=1e-4)


def test_memory_does_not_grow_with_the_draws():
    sizes = {}
    for n in (1_000, 100_000):
        m = Moments(n)
        for g in torch.randn(n, 5):
            m.add(g)
        sizes[n] = sum(t.numel() for t in vars(m).values() if torch.is_tensor(t))
    assert sizes[1_000] == sizes[100_000] == BLOCKS * (5 + 2) + 5


def test_the_error_of_what_it_is_held_against_widens_the_interval():
    m = moments_of(1 + torch.randn(400, 4, dtype=F64))
    exact, vague = m.length(torch.zeros(4, dtype=F64)), m.length(torch.zeros(4, dtype=F64), 0.5)
    assert vague.low < exact.low < exact.high < vague.high


def test_a_draw_may_be_overwritten_once_it_is_added():
    m, g = Moments(3), torch.ones(2)
    for i in range(3):
        g.fill_(i)
        m.add(g)
    assert m.mean().tolist() == [1, 1]
    assert m.variance().value == pytest.approx(2)


def test_the_bootstrap_hangs_on_its_seed_alone():
    draws = torch.randn(50, 3, dtype=F64)
    ends = [moments_of(draws, seed).length().ends() for seed in (0, 0, 1)]
    assert ends[0] == ends[1] != ends[2]


def test_more_parameters_than_are_taken_at_once(monkeypatch):
    draws = 1 + torch.randn(20, 10, dtype=F64)
    whole = moments_of(draws).length(torch.ones(10, dtype=F64) / 2).ends()
    monkeypatch.setattr("pyrovae.lab.statistics.COLUMNS", 3)
    assert moments_of(draws).length(torch.ones(10, dtype=F64) / 2).ends() == pytest.approx(whole)


def test_figures_follow_the_draws_that_come_after():
    draws = torch.randn(20, 3, dtype=F64)
    m = Moments(20)
    for i, g in enumerate(draws):
        m.add(g)
        if i > 1:
            assert m.variance().value == pytest.approx(float(draws[: i + 1].var(0).sum()))
