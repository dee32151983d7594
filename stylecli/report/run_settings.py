"""A run's settings beside those of the preset it comes from, and the command that means them."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stylecli.errors import UsageError
from stylecli.report.content import Table
from stylecli.report.run_facts import RunFacts
from stylecli.training.by_resolution import parse_by_resolution
from stylecli.training.preset_reasons import PRESET_TEXTS
from stylecli.training.presets import TrainingPlan, plan_training, show_value
from stylecli.training.run_folder import RunSettings

# Options of stylecli train by the setting they give; tables by resolution apart.
_FLAGS = {
    "fmap_base": "--fmap-base", "fmap_max": "--fmap-max", "z_dim": "--z-dim", "w_dim": "--w-dim",
    "mapping_layers": "--mapping-layers", "mapping_fmaps": "--mapping-fmaps",
    "mbstd_group_size": "--mbstd-group", "style_mixing_prob": "--mixing",
    "total_kimg": "--kimg", "initial_resolution": "--initial-resolution",
    "hold_kimg": "--hold-kimg", "fade_kimg": "--fade-kimg",
    "minibatch_repeats": "--minibatch-repeats", "adam_beta1": "--beta1", "adam_beta2": "--beta2",
    "ema_kimg": "--ema-kimg", "loss": "--loss", "r1_gamma": "--gamma", "r2_gamma": "--gamma-fake",
    "r1_method": "--r1", "r1_interval": "--r1-interval", "freeze_d": "--freeze-d",
    "tick_kimg": "--tick-kimg", "snapshot_ticks": "--snapshot-ticks", "precision": "--precision",
    "seed": "--seed",
}  # fmt: skip
_SWITCHES = {
    "share_fakes": ("--share-fakes", "--own-fakes"), "mirror": ("--mirror", "--no-mirror"),
}  # fmt: skip
_TABLES = {"batch": ("batch_base", "--batch"), "lr": ("lr_base", "--lr")}
_FROM_DATA = {"preset", "resolution", "channels", "label_dim"}  # not the preset's to say


@dataclass(frozen=True)
class Origins:
    """Where a run's settings come from."""

    plan: TrainingPlan  # what the nearest preset alone means for this dataset and machine
    network: Mapping[str, tuple[Any, Any]]  # name -> (the run's value, the preset's) where they
    training: Mapping[str, tuple[Any, Any]]  # differ

    @property
    def changed(self) -> int:
        """How many settings differ from the preset's."""
        return len(self.network) + len(self.training)


def find_origins(settings: RunSettings) -> Origins | None:
    """Return the preset that comes nearest to a run, and what differs.

    The length is taken first, as presets scale their stages by it. ``run.json`` does not name the
    preset; of two equally near ones the first of the list counts. None where no preset fits.
    """
    candidates = []
    for preset in PRESET_TEXTS:
        try:
            alone = _plan(settings, preset, {})
            scaled = _plan(settings, preset, {"total_kimg": settings.training.total_kimg})
        except UsageError:  # not for this resolution or number of processes
            continue
        network = _differing(settings.network.to_dict(), scaled.network.to_dict())
        training = _differing(settings.training.to_dict(), scaled.training.to_dict())
        if settings.training.total_kimg != alone.training.total_kimg:
            training["total_kimg"] = (settings.training.total_kimg, alone.training.total_kimg)
        candidates.append(Origins(scaled, network, training))
    return min(candidates, key=lambda origins: origins.changed, default=None)


def settings_table(origins: Origins) -> Table:
    """Return what differs from the preset: setting, the run's value, the preset's."""
    rows = [
        (name, show_value(own), show_value(other))
        for name, (own, other) in {**origins.network, **origins.training}.items()
    ]
    preset = origins.plan.preset
    return Table(
        ("changed setting", "this run", f"preset {preset}"), rows,
        "Times of the schedule are those the preset has at this length.",
        marked=range(len(rows)),
    )  # fmt: skip


def full_table(title: str, values: Mapping[str, Any], changed: Mapping[str, Any]) -> Table:
    """Return all settings of one kind, those changed from the preset marked; folded away."""
    rows = [(name, show_value(value)) for name, value in values.items() if name != "family"]
    marked = {index for index, (name, _) in enumerate(rows) if name in changed}
    return Table(("setting", "value"), rows, title, marked=marked, folded=True)


def differing_table(runs: Sequence[RunFacts]) -> Table:
    """Return the settings that the runs do not share, a column for each run."""
    flat = [_flat(facts) for facts in runs]
    names = list(dict.fromkeys(name for values in flat for name in values))
    rows = [
        (name, *cells) for name in names
        if len(set(cells := [values.get(name, "–") for values in flat])) > 1
    ]  # fmt: skip
    return Table(("setting", *(facts.name for facts in runs)), rows)


def train_command(facts: RunFacts, origins: Origins | None) -> str | None:
    """Return the ``stylecli train`` line that goes on with a run; None where none is certain.

    The line is checked: its settings are derived anew and must be those of the run.
    """
    settings = facts.settings
    if origins is None or settings.origin is not None:
        return None  # its weights came from a file, which decides settings too
    words = ["stylecli", "train", str(settings.dataset), "--preset", origins.plan.preset]
    if settings.network.preset != "f":
        words += ["--config", settings.network.preset]
    given: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    changed = {**origins.network, **origins.training}
    for name in changed:
        value = getattr(settings.network, name, getattr(settings.training, name, None))
        if name in _FLAGS and value is not None:
            words += [_FLAGS[name], _exact(value)]
            given[name] = value
        elif name in _SWITCHES:
            words.append(_SWITCHES[name][0 if value else 1])
            given[name] = value
        elif name == "fused_scale":
            words += ["--fused-scale", "auto" if value == "auto" else "on" if value else "off"]
            given[name] = value
    for name, (base, flag) in _TABLES.items():
        if name in changed or base in changed:
            text = _by_resolution(
                getattr(settings.training, name), getattr(settings.training, base)
            )
            words += [flag, text]
            tables[name] = parse_by_resolution(text, flag, whole=name == "batch")
    if settings.network.label_dim:
        words.append("--labels")
    words += ["--gpus" if settings.device == "cuda" else "--ranks", str(settings.ranks)]
    words += ["--device", settings.device, "--out", str(facts.path)]
    try:
        plan = _plan(settings, origins.plan.preset, given, **tables)
    except UsageError:
        return None
    same = plan.network == settings.network and plan.training == settings.training
    return shlex.join(words) if same else None


def _plan(
    settings: RunSettings, preset: str, given: Mapping[str, Any], **tables: Any
) -> TrainingPlan:
    network = settings.network
    own = {name: value for name, value in given.items() if hasattr(network, name)}
    return plan_training(
        preset, config=network.preset, resolution=network.resolution, channels=network.channels,
        label_dim=network.label_dim, device=settings.device, ranks=settings.ranks, network=own,
        training={name: value for name, value in given.items() if name not in own}, **tables,
    )  # fmt: skip


def _differing(own: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        name: (value, other.get(name))
        for name, value in own.items()
        if value != other.get(name) and name not in _FROM_DATA
    }


def _exact(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)


def _by_resolution(table: Mapping[int, Any], base: Any) -> str:
    return ",".join([_exact(base), *(f"{side}:{_exact(value)}" for side, value in table.items())])


def _flat(facts: RunFacts) -> dict[str, str]:
    settings, environment = facts.settings, facts.record.get("environment") or {}
    show: Callable[[Any], str] = show_value
    values = {
        "dataset": facts.settings.dataset.name,
        "dataset digest": settings.dataset_digest[:12],
        **{name: show(value) for name, value in settings.network.to_dict().items()},
        **{name: show(value) for name, value in settings.training.to_dict().items()},
        "begun with": settings.origin.source if settings.origin else "fresh weights",
        "processes": str(settings.ranks),
        "device": settings.device,
        **{name: str(value) for name, value in environment.items()},
        "stylecli": str(facts.record.get("stylecli", "–")),
    }
    values["configuration"] = values.pop("preset", "–")
    return values
