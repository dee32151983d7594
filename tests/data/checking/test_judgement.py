"""What is judged from sums alone."""

import random

import pytest

from stylecli.data.checking.findings import Findings, Measured, Tally
from stylecli.data.checking.judgement import suggest_resolution
from stylecli.data.preparation import choose_resolution


@pytest.mark.parametrize("seed", range(5))
def test_the_suggested_resolution_is_the_one_that_packing_takes(seed):
    random.seed(seed)
    sizes = [(random.randint(30, 90) << seed, random.randint(30, 90) << seed) for _ in range(200)]
    thumbnail = bytes(32 * 32)
    with Tally(len(sizes)) as tally:
        tally.add(
            Findings(
                [
                    Measured(index, bytes(32), thumbnail, size, "RGB", "PNG")
                    for index, size in enumerate(sizes)
                ]
            )
        )
        assert suggest_resolution(tally) == choose_resolution(sizes, "center-crop", 1024)
