"""Timing: every case takes its turns, and what is known of it comes out."""

from typing import Any

import torch

from stylecli.bench import Case, ceiling_case, drawing_cases, measure, training_batch, training_case
from stylecli.networks.registry import make_config

CPU = torch.device("cpu")


def test_cases_take_turns_and_only_rounds_after_the_warm_up_count() -> None:
    calls: list[str] = []
    cases = [
        Case(name, "float32", "image", 4, lambda name=name: calls.append(name)) for name in "ab"
    ]

    timings = measure(cases, 3)

    assert calls == ["a", "b"] * 5  # two rounds of warm-up
    assert [len(timing.wall) for timing in timings] == [3, 3]


def test_drawing_and_training_of_a_network_are_measured(tiny_network: Any) -> None:
    cases = drawing_cases(tiny_network, [1, 2], ["float32", "bf16"], CPU)

    timings = measure([*cases, training_case(tiny_network, 4, CPU)], 1)

    assert [timing.case.name for timing in timings][:2] == [
        "draw 16 px, batch 1, float32",
        "draw 16 px, batch 2, float32",
    ]
    assert all(timing.cpu[0] > 0 and timing.wall[0] > 0 for timing in timings)


def test_training_is_timed_with_the_largest_batch_and_at_least_a_group() -> None:
    assert [training_batch(batches) for batches in ([1], [2, 1], [1, 8, 4])] == [4, 4, 8]


def test_the_work_of_a_picture_is_that_of_its_convolutions() -> None:
    """By hand for the paper's 256 px network; its ninefold upsampling would be 56.2 G."""
    assert round(make_config("f", resolution=256).drawing_flops() / 1e9, 1) == 36.6
    assert ceiling_case(CPU, "float32").flops == 2 * 9 * 512 * 512 * 64 * 64
