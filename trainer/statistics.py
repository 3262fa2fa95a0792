"""The few statistics that decide something, exact and without a library."""

import math


def mcnemar(better: int, worse: int) -> float:
    """How likely it is that chance alone made one of two so much better on the same questions, or more; one-sided.

    Exact, by the binomial distribution: McNemar, Q. (1947), Note on the sampling error of the difference between
    correlated proportions or percentages. Psychometrika 12, 153-157.

    Args:
        better: questions that only the one answered rightly.
        worse: questions that only the other one did.

    Returns:
        0 to 1; 1 where they differ nowhere.
    """
    total = better + worse
    return float(sum(math.comb(total, count) for count in range(better, total + 1)) / 2**total)


def wilson(right: int, asked: int, z: float = 1.96) -> tuple[float, float]:
    """Between which shares the true one lies, as well as so few questions tell.

    Wilson, E. B. (1927), Probable inference, the law of succession, and statistical inference. JASA 22, 209-212.

    Args:
        right: of the `asked` ones.
        asked: 0 or more; of none nothing is known: 0 to 1.
        z: how sure; 1.96 for 95 %.
    """
    if not asked:
        return 0.0, 1.0
    share = right / asked
    spread = 1 + z * z / asked
    middle = (share + z * z / (2 * asked)) / spread
    half = z * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked)) / spread
    return max(0.0, middle - half), min(1.0, middle + half)
