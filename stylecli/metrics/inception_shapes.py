"""The layers of the 2015-12-05 Inception-v3, by the names of pytorch-fid's weight file."""

CLASSES = 1008
FEATURES = 2048

# name -> outputs, inputs, kernel height, kernel width
Shapes = dict[str, tuple[int, int, int, int]]


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every weight, batch norm counters left out."""
    shapes: dict[str, tuple[int, ...]] = {"fc.weight": (CLASSES, FEATURES), "fc.bias": (CLASSES,)}
    for name, shape in conv_shapes().items():
        shapes[f"{name}.conv.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{part}"] = (shape[0],)
    return shapes


def conv_shapes() -> Shapes:
    """Return name -> [outputs, inputs, kernel height, kernel width] of all 94 convolutions."""
    shapes: Shapes = {}

    def chain(prefix: str, inputs: int, rows: list[tuple[str, int, tuple[int, int]]]) -> None:
        for suffix, outputs, kernel in rows:
            shapes[prefix + suffix] = (outputs, inputs, *kernel)
            inputs = outputs

    one, three, five, wide, tall = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)
    chain("Conv2d_", 3, [("1a_3x3", 32, three), ("2a_3x3", 32, three), ("2b_3x3", 64, three),
                         ("3b_1x1", 80, one), ("4a_3x3", 192, three)])  # fmt: skip
    for name, inputs, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        block = f"Mixed_{name}.branch"
        chain(block, inputs, [("1x1", 64, one)])
        chain(block, inputs, [("5x5_1", 48, one), ("5x5_2", 64, five)])
        chain(block, inputs, [("3x3dbl_1", 64, one), ("3x3dbl_2", 96, three),
                              ("3x3dbl_3", 96, three)])  # fmt: skip
        chain(block, inputs, [("_pool", pool, one)])
    chain("Mixed_6a.branch", 288, [("3x3", 384, three)])
    chain("Mixed_6a.branch3x3dbl", 288, [("_1", 64, one), ("_2", 96, three), ("_3", 96, three)])
    for name, c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        block = f"Mixed_{name}.branch"
        chain(block, 768, [("1x1", 192, one)])
        chain(block, 768, [("7x7_1", c, one), ("7x7_2", c, wide), ("7x7_3", 192, tall)])
        chain(block, 768, [("7x7dbl_1", c, one), ("7x7dbl_2", c, tall), ("7x7dbl_3", c, wide),
                           ("7x7dbl_4", c, tall), ("7x7dbl_5", 192, wide)])  # fmt: skip
        chain(block, 768, [("_pool", 192, one)])
    chain("Mixed_7a.branch3x3", 768, [("_1", 192, one), ("_2", 320, three)])
    chain("Mixed_7a.branch7x7x3", 768, [("_1", 192, one), ("_2", 192, wide), ("_3", 192, tall),
                                        ("_4", 192, three)])  # fmt: skip
    for name, inputs in (("7b", 1280), ("7c", 2048)):
        block = f"Mixed_{name}.branch"
        chain(block, inputs, [("1x1", 320, one)])
        chain(block, inputs, [("3x3_1", 384, one), ("3x3_2a", 384, (1, 3))])
        chain(block, 384, [("3x3_2b", 384, (3, 1))])
        chain(block, inputs, [("3x3dbl_1", 448, one), ("3x3dbl_2", 384, three),
                              ("3x3dbl_3a", 384, (1, 3))])  # fmt: skip
        chain(block, 384, [("3x3dbl_3b", 384, (3, 1))])
        chain(block, inputs, [("_pool", 192, one)])
    return shapes
