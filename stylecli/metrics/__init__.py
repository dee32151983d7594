"""Numbers about generators: statistics as pure functions, feature networks, one-pass evaluation."""

from collections.abc import Sequence

from stylecli.errors import UsageError, unknown_name
from stylecli.lazy import lazy_attributes

_WHERE = {
    "frechet_distance": "stylecli.metrics.frechet",
    "kernel_distance": "stylecli.metrics.kernel",
    "inception_score": "stylecli.metrics.class_scores",
    "sliced_wasserstein": "stylecli.metrics.swd",
    "precision_recall": "stylecli.statistics.neighbours",
    "conditional_entropy": "stylecli.metrics.separability",
    "measure_separability": "stylecli.metrics.separability",
    "AttributeClassifiers": "stylecli.metrics.classifiers",
    "load_classifiers": "stylecli.metrics.classifiers",
    "train_classifiers": "stylecli.metrics.classifier_training",
    "ppl_trim": "stylecli.metrics.path_length",
    "InceptionV3": "stylecli.features.inception",
    "MetricResult": "stylecli.metrics.tasks",
    "evaluate": "stylecli.metrics.evaluation",
    "evaluate_over_psi": "stylecli.metrics.evaluation",
}

__all__ = list(_WHERE)
__getattr__ = lazy_attributes(__name__, _WHERE)


def __dir__() -> list[str]:
    return sorted(_WHERE)


STAND_IN = "efficientnet-lite0"  # what stylecli.weights calls it, which takes time to load
OLD_PATHS = {f"ppl2_{end}": f"ppl_{end}" for end in ("wend", "wfull", "zend", "zfull")}
NAMES_OF: dict[str, tuple[str, ...]] = {
    "fid": ("fid", "fid50k", "fid50k_full", "fid-clean", "fid-clean50k", "fid-clean50k_full",
            f"fid@{STAND_IN}"),
    "kid": ("kid", "kid50k", "kid50k_full", "kid-clean", "kid-clean50k", "kid-clean50k_full",
            f"kid@{STAND_IN}"),
    "is": ("is", "is50k", f"is@{STAND_IN}"),
    "pr": ("pr", "pr50k3", "pr50k3_full", f"pr@{STAND_IN}"),
    "swd": ("swd",),
    "diversity": ("diversity",),
    "ppl": (
        "ppl",
        *(
            f"ppl_{space}{sampling}{crop}"
            for crop in ("", "-crop", "-crop-ada")
            for space in "zw"
            for sampling in ("full", "end")
        ),
        *OLD_PATHS,
    ),
    "ls": ("ls", "ls_z", "ls_w"),
    "eqt_int": ("eqt_int", "eqt50k_int"),
    "eqt_frac": ("eqt_frac", "eqt50k_frac"),
    "eqr": ("eqr", "eqr50k"),
}  # fmt: skip
# Plain names first: who mistypes one reads the list.
NAMES = (*NAMES_OF, *(name for kind, names in NAMES_OF.items() for name in names if name != kind))


def check_names(names: Sequence[str]) -> None:
    """Raise UsageError for no names and for unknown ones."""
    for name in names:
        if name not in NAMES:
            raise UsageError(unknown_name("metric", name, NAMES))
    if not names:
        raise UsageError(f"no metric given: expected some of {', '.join(NAMES)}")
