"""Deal a rank's samples to passes, so that several small ones do what one large batch does.

A pass takes every P-th sample of the rank's share, as a rank takes every so-many-th of the batch.
Minibatch stddev puts samples n and n + N/g of N in one group of g; among every P-th sample the
partners of a group are still N/g apart in the whole, so each group lies within one pass as long as
the size of a pass is a multiple of g. Stdlib only.
"""

from collections.abc import Iterator

from stylecli.errors import UsageError


def count_passes(share: int, batch_gpu: int | None, group_size: int) -> int:
    """Return the fewest passes of at most ``batch_gpu`` samples that ``share`` samples divide into.

    ``group_size`` is that of minibatch stddev, 0 or 1 for none. Raises UsageError when no number
    of passes keeps its groups whole.
    """
    if batch_gpu is None or share <= batch_gpu:
        return 1
    group = min(group_size, share) if group_size > 1 else 1
    for size in _pass_sizes(share, group):
        if size <= batch_gpu:
            return share // size
    raise UsageError(
        f"{share} samples per process do not divide into passes of at most {batch_gpu} that are "
        f"multiples of the minibatch-stddev group of {group}: give --batch-gpu {group} or more"
        if batch_gpu < group
        else f"{share} samples per process do not divide into equal passes of at most {batch_gpu} "
        f"in whole minibatch-stddev groups of {group}: give another --batch or --batch-gpu"
    )


def smaller_pass(share: int, passes: int, group_size: int) -> int | None:
    """Return the next smaller size of a pass than with ``passes`` of them, None if it is least."""
    group = min(group_size, share) if group_size > 1 else 1
    return next((size for size in _pass_sizes(share, group) if size < share // passes), None)


def _pass_sizes(share: int, group: int) -> Iterator[int]:
    """Yield the sizes of equal passes in whole groups, from the largest below ``share`` down."""
    for passes in range(2, share // group + 1):
        size, rest = divmod(share, passes)
        if not rest and size % group == 0:
            yield size
