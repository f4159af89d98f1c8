"""Many cases of a matrix, from the command line: `python -m tests.effect_matrix FROM TO`."""

from __future__ import annotations

import collections
import sys
import warnings
from collections.abc import Callable


def run_many(run_case: Callable[[int], str]) -> None:
    """Run the cases of the seeds that the command line names; print those that differ, and how all were answered."""
    warnings.simplefilter("ignore")
    told: collections.Counter[str] = collections.Counter()
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        try:
            told[run_case(seed)] += 1
        except AssertionError as error:
            told["different"] += 1
            print(error, flush=True)
    print(dict(told))
