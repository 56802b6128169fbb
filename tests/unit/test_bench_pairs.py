"""The statistics of the bench: ratios pair by pair, medians, and a permutation test that knows when to say nothing."""

import math
import random

import pytest

from bench import pairs


def test_ratios_are_taken_pair_by_pair():
    found = pairs.compare([10, 30, 20], [5, 10, 20])
    assert found.ratios == [2, 3, 1]
    assert found.median == 2


def test_a_machine_that_grows_slower_takes_both_along():
    found = pairs.compare([100, 50, 25], [200, 100, 50])
    assert found.ratios == [0.5, 0.5, 0.5]


def test_pairs_with_a_zero_have_no_ratio():
    assert pairs.compare([0, 4], [3, 2]).ratios == [2]
    assert pairs.compare([0], [0]).median == 1


def test_runs_without_a_partner_are_refused():
    with pytest.raises(ValueError, match="pairs are wanted"):
        pairs.compare([1, 2], [1])


def test_complete_separation_of_five_pairs_is_a_difference():
    found = pairs.compare([11, 12, 13, 14, 15], [1, 2, 3, 4, 5])
    assert found.probability == pytest.approx(2 / math.comb(10, 5))
    assert found.difference


def test_nearly_complete_separation_of_five_pairs_is_none():
    assert not pairs.compare([11, 12, 13, 14, 4.5], [1, 2, 3, 4, 5]).difference


def test_three_pairs_have_to_be_separated_completely():
    assert pairs.compare([5, 6, 7], [1, 2, 3]).difference
    assert not pairs.compare([5, 2.5, 7], [1, 2, 3]).difference


def test_two_pairs_say_nothing():
    assert not pairs.compare([100, 101], [1, 2]).difference


def test_the_same_figures_are_no_difference():
    found = pairs.compare([7] * 5, [7] * 5)
    assert found.probability == 1
    assert not found.difference


def test_no_pairs_say_nothing():
    found = pairs.compare([], [])
    assert (found.ratios, found.difference) == ([], False)


def test_the_two_sides_may_be_exchanged():
    a, b = [3.0, 4, 5, 9], [4.0, 4, 6, 7]
    assert pairs.permutation_probability(a, b) == pytest.approx(pairs.permutation_probability(b, a))


def test_noise_is_rarely_taken_for_a_difference():
    dice = random.Random(7)  # noqa: S311  (statistics)
    draws = [pairs.compare(*([dice.lognormvariate(0, 0.2) for _ in range(5)] for _ in range(2))) for _ in range(200)]
    assert sum(found.difference for found in draws) <= 8


def test_many_pairs_are_sampled_and_repeatable():
    dice = random.Random(3)  # noqa: S311  (statistics)
    a = [dice.gauss(100, 5) for _ in range(20)]
    b = [dice.gauss(110, 5) for _ in range(20)]
    assert pairs.compare(a, b).difference
    assert pairs.permutation_probability(a, b) == pairs.permutation_probability(a, b)


def test_zeros_count_as_the_smallest_figure_seen():
    assert pairs.permutation_probability([0, 0, 0], [0, 0, 0]) == 1
    assert pairs.permutation_probability([0, 0, 0], [5, 6, 7]) < 1
