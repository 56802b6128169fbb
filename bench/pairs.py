"""Statistics of paired runs. Pure: lists of numbers in, numbers out.

Two systems are measured in turn, A B A B ..., so that a machine that grows slower takes both along. The ratio is taken
pair by pair. Whether there is a difference at all is asked of a permutation test: if it made no difference which system
a figure came from, how often would shuffled labels set the two groups as far apart as they are?
"""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

LEVEL = 0.01
"""Below this probability a difference is believed."""
WEAKEST = 0.1
"""What complete separation of three pairs comes to: with fewer there is nothing to say."""
EXACT_MAX = 20_000
"""Up to so many ways to share out the labels, all are tried; beyond, so many at random."""
_SLACK = 1e-12
"""Two sums of the same numbers in another order differ by rounding."""


@dataclass(frozen=True)
class Comparison:
    """One system against another, by one metric."""

    ratios: list[float]
    """Pair by pair; pairs of which one side is zero are left out."""
    probability: float
    """That chance alone sets the two so far apart."""
    level: float
    """What `probability` has to be below, or equal to with few pairs, for a difference to be seen.

    Zero where there are too few pairs for one ever to be seen.
    """

    @property
    def difference(self) -> bool:
        """Whether there is one to see."""
        return self.probability <= self.level

    @property
    def median(self) -> float:
        """Of the ratios; 1 where there are none."""
        return median(self.ratios) if self.ratios else 1.0


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
    """Compares runs that were made in turn; both sequences are in the order of the runs."""
    if len(ours) != len(theirs):
        raise ValueError(f"pairs are wanted, not {len(ours)} and {len(theirs)} runs")
    ratios = [our / their for our, their in zip(ours, theirs, strict=True) if our > 0 and their > 0]
    probability = permutation_probability(ours, theirs)
    # With few pairs not even complete separation is below LEVEL: then it is complete separation that counts.
    lowest = 2 / math.comb(2 * len(ours), len(ours)) if ours else 1.0
    return Comparison(ratios, probability, max(LEVEL, lowest) if lowest <= WEAKEST else 0.0)


def permutation_probability(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided: the share of labellings whose means of logarithms differ at least as much as the true ones do.

    Logarithms, because what matters is by which factor two figures differ; zeros count as the smallest figure seen.
    """
    everything = [*a, *b]
    positive = [value for value in everything if value > 0]
    if not positive or not a or not b:
        return 1.0
    logs = [math.log(max(value, min(positive))) for value in everything]
    seen = _distance(logs, range(len(a)), len(a))
    found = total = 0
    for chosen in _labellings(len(logs), len(a)):
        total += 1
        found += _distance(logs, chosen, len(a)) >= seen - _SLACK
    return found / total


def _distance(logs: Sequence[float], chosen: Sequence[int], count: int) -> float:
    """Between the mean of the chosen and that of the rest."""
    inside = math.fsum(logs[i] for i in chosen)
    rest = math.fsum(logs) - inside
    return abs(inside / count - rest / (len(logs) - count))


def _labellings(total: int, count: int) -> Iterator[Sequence[int]]:
    if math.comb(total, count) <= EXACT_MAX:
        yield from itertools.combinations(range(total), count)
        return
    dice = random.Random(1)  # noqa: S311  (statistics; the same answer for the same figures every time)
    yield range(count)
    for _ in range(EXACT_MAX):
        yield dice.sample(range(total), count)
