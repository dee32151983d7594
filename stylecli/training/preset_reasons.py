"""Why each preset sets what it sets: the paper's value, or our own choice and its reason."""

from stylecli.training.published import SETS, batches_for

PRESET_TEXTS = {
    "paper": "the paper's FFHQ settings",
    "celebahq": "the paper's CelebA-HQ settings: WGAN-GP, learning rates up to 0.002",
    "lsun-bedroom": "the paper's LSUN Bedroom settings, 256 px",
    "lsun-car": "the paper's LSUN Car settings, 512 × 384 within 512 px",
    "lsun-cat": "the paper's LSUN Cat settings, 256 px",
    "photos": "our own for hundreds to thousands of photographs at 128 to 256 px on one GPU",
    "small": "our own small network and short schedule, for processors",
}

_OWN: dict[str, dict[str, str]] = {
    "none": {"*": "the default"},
    "photos": {
        "fmap_base": "half the paper's feature maps: few pictures teach a large network by heart",
        "total_kimg": "a fifth of the paper's: few pictures are learned by heart before more",
        "hold_kimg": "6 % of the schedule per stage: two fifths are left for 256 px",
        "fade_kimg": "6 % of the schedule per fade",
        "batch": "the paper's table, at least 16: today's memory allows it, and R1 is steadier",
        "batch_base": "at least 16, as above",
        "lr": "the paper's",
        "lr_base": "the paper's",
        "mirror": "twice the pictures; --no-mirror where left and right differ, as in writing",
        "r1_gamma": "twice the paper's: with few pictures D overfits, and R1 holds it back",
    },
    "small": {
        "*": "small networks learn a small set of pictures in minutes",
        "fmap_base": "16 feature maps at the full resolution of 32 px, the cost of a step",
        "total_kimg": "a first result overnight or sooner; set it with --kimg",
        "hold_kimg": "9 % of the schedule per stage, so that most time is at full resolution",
        "fade_kimg": "9 % of the schedule per fade",
        "batch_base": "at every resolution; 8 per process on two cores",
        "lr_base": "at every resolution; three times the paper's: fewer steps, smaller network",
        "r1_gamma": "small pictures need less than the paper's 10",
        "r1_interval": "the penalty is a third of a step's cost; every 4th step is enough",
        "ema_kimg": "half-life of a thirtieth of the schedule, at most the paper's 10",
        "share_fakes": "saves one generator pass per step",
        "tick_kimg": "60 reports over the run",
        "snapshot_ticks": "10 networks and sample sheets over the run",
        "sample_psi": "sheets show what the tool shows by default",
        "sample_noise": "noise is still rough early in training",
    },
}
_WGAN_GP = {
    "loss": "the paper's for configuration a",
    "r1_gamma": "R1 belongs to the logistic loss; WGAN-GP has a penalty of its own",
    "r1_interval": "WGAN-GP takes its penalty every step",
    "total_kimg": "the paper's length with WGAN-GP",
    "lr": "the paper's with WGAN-GP: none above 0.002",
    "lr_base": "at every resolution; the paper's highest with WGAN-GP",
}
# What stays our own with WGAN-GP, too.
_OURS = {"photos": {"total_kimg", "lr_base"}, "small": {"total_kimg", "lr"}}


def derived_reason(preset: str, config: str, name: str, gpus: int) -> str:
    """Return why a preset sets a field as it does, for a configuration and number of GPUs."""
    published = SETS.get(preset)
    wgan_gp = config == "a" or (published is not None and published.loss == "wgan-gp")
    if wgan_gp and name in _WGAN_GP:
        if name == "loss" and config != "a" and published:
            return f"the paper's for {published.title}"
        # Length and rates of our own short schedules are not the paper's.
        if name not in _OURS[preset] if preset in _OURS else name != "lr_base":
            return _WGAN_GP[name]
    if published is None:
        return _OWN[preset].get(name) or _OWN[preset].get("*", "our own choice")
    if name in ("batch", "batch_base"):
        return batches_for(gpus)[2]
    if name == "mirror":
        wanted = "flipped" if published.mirror else "not flipped"
        return f"the paper's: {published.title} is {wanted}"
    return f"the paper's for {published.title}"
