"""What looks wrong about a plan, in sentences. Advice never changes a setting. Stdlib only."""

from collections.abc import Iterator

from stylecli.training.config import TrainingConfig
from stylecli.training.presets import TrainingPlan
from stylecli.training.published import GAMMA, SETS, WGAN_GP_MAX_LR
from stylecli.training.schedule import batch_at, grown_kimg, list_stages

FAR = 4.0  # so many times above or below what is usual counts as far
# The field's rule of thumb for the weight of R1 by resolution and batch (StyleGAN2-ADA's).
GAMMA_RULE = 0.0002
FEW_FOR_PUBLISHED = 5_000  # pictures


def advise(
    plan: TrainingPlan, *, pictures: int | None = None, classes: int = 0, transform: str = ""
) -> list[str]:
    """Return a sentence for everything that looks wrong about a plan.

    ``pictures``, ``classes`` and ``transform`` (how pictures came onto the square) describe the
    dataset where they are known.
    """
    return [
        *_of_the_loss(plan),
        *_of_the_gamma(plan),
        *_of_the_schedule(plan),
        *_of_the_set(plan, pictures, classes, transform),
    ]


def _of_the_loss(plan: TrainingPlan) -> Iterator[str]:
    training = plan.training
    logistic = training.loss.startswith("logistic")
    for name, option, weight in (("R1", "--gamma", training.r1_gamma),
                                 ("R2", "--gamma-fake", training.r2_gamma)):  # fmt: skip
        field = "r1_gamma" if name == "R1" else "r2_gamma"
        if not logistic and weight and field in plan.given:
            yield (
                f"{option} {weight:g} has no effect: {name} goes with the logistic losses, not "
                f"with {training.loss}"
            )
    if logistic and not training.r1_gamma and not training.r2_gamma:
        yield (
            f"the {training.loss} loss without R1 or R2 rarely converges: set --gamma, "
            f"{GAMMA:g} in the paper"
        )
    rates = [stage.lr for stage in list_stages(training, plan.network.resolution)]
    if training.loss == "wgan-gp" and max(rates) > WGAN_GP_MAX_LR:
        yield (
            f"learning rates above {WGAN_GP_MAX_LR:g} are more than the paper uses with wgan-gp: "
            "--lr 0.001,128:0.0015,256:0.002,512:0.002,1024:0.002"
        )
    if "style_mixing_prob" in plan.given and not plan.network.has_w:
        yield (
            f"--mixing has no effect: configuration {plan.network.preset} has no styles to mix; "
            "c to f have"
        )


def usual_gamma(training: TrainingConfig, resolution: int) -> tuple[float, float]:
    """Return the range in which R1's weight is usual at a resolution.

    From the rule of thumb 0.0002 · side² / batch to the paper's 10, whichever is lower first.
    """
    batch = batch_at(training, resolution)
    rule = GAMMA_RULE * resolution**2 / batch
    return min(rule, GAMMA), max(rule, GAMMA)


def _of_the_gamma(plan: TrainingPlan) -> Iterator[str]:
    training, side = plan.training, plan.network.resolution
    if not training.loss.startswith("logistic") or not training.r1_gamma:
        return
    low, high = usual_gamma(training, side)
    if not low / FAR <= training.r1_gamma <= high * FAR:
        yield (
            f"gamma {training.r1_gamma:g} is far from what is usual at {side} px with this batch, "
            f"{low:.2g} to {high:.2g}: too little lets D overfit, too much blurs"
        )


def _of_the_schedule(plan: TrainingPlan) -> Iterator[str]:
    training, side = plan.training, plan.network.resolution
    grown = grown_kimg(training, side)
    if grown >= training.total_kimg:
        doublings = side.bit_length() - training.initial_resolution.bit_length()
        shorter = round(0.6 * training.total_kimg / (2 * max(doublings, 1)), 2)
        yield (
            f"{training.total_kimg:g} kimg end before the network is grown to {side} px, which "
            f"takes {grown:g}: give --kimg {2 * grown:g}, or --hold-kimg {shorter:g} --fade-kimg "
            f"{shorter:g}"
        )


def _of_the_set(
    plan: TrainingPlan, pictures: int | None, classes: int, transform: str
) -> Iterator[str]:
    side, published = plan.network.resolution, SETS.get(plan.preset)
    if published is not None:
        if side not in published.resolutions and plan.preset != "paper":
            expected = " or ".join(str(px) for px in published.resolutions)
            yield (
                f"preset {plan.preset} was published at {expected} px, these pictures have {side}: "
                f"pack them again with --resolution {published.resolutions[0]}, or expect other "
                "results"
            )
        if transform and published.transform == "wide" and transform not in ("wide", "letterbox"):
            yield (
                f"preset {plan.preset} was published on pictures of 4:3 within the square: these "
                f"were packed with {transform}; pack them with --transform {published.transform}"
            )
        if pictures is not None and pictures < FEW_FOR_PUBLISHED:
            yield (
                f"{pictures:,} pictures are few for preset {plan.preset}, whose length suits tens "
                "of thousands: --preset photos is made for them"
            )
    if classes and not plan.network.label_dim:
        yield f"the dataset's {classes} classes are not used: give --labels to train on them"
