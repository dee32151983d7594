"""The names of all metrics, which a command line is checked against before torch loads."""

from collections.abc import Sequence

from stylecli.errors import UsageError, unknown_name

STAND_IN = "efficientnet-lite0"  # what stylecli.weights calls it, which takes time to load
OLD_PATHS = {f"ppl2_{end}": f"ppl_{end}" for end in ("wend", "wfull", "zend", "zfull")}
NAMES_OF: dict[str, tuple[str, ...]] = {
    "fid": ("fid", "fid50k", "fid50k_full", "fid-clean", "fid-clean50k", "fid-clean50k_full",
            f"fid@{STAND_IN}"),
    "kid": ("kid", "kid50k", "kid50k_full", "kid-clean", "kid-clean50k", "kid-clean50k_full",
            f"kid@{STAND_IN}"),
    "is": ("is", "is50k", f"is@{STAND_IN}"),
    "pr": ("pr", "pr50k3", "pr50k3_full", f"pr@{STAND_IN}"),
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
