"""What `stylecli info` says of files that hold weights: ours, other programs', classifiers."""

from pathlib import Path
from typing import Any

from stylecli.errors import NetworkError, WeightsError

Facts = dict[str, Any]


def describe_weights(path: Path) -> Facts:
    """Describe any file of weights; raise NetworkError if it holds none that is known."""
    from stylecli.checkpoint import is_foreign, read_header

    if is_foreign(path):
        return _describe_foreign(path)
    try:
        header = read_header(path)
    except NetworkError as error:
        return _describe_features(path, error)
    if "attributes" in header:
        return _describe_classifiers(path)
    return describe_network(path)


def describe_network(path: Path) -> Facts:
    """Describe a network or training checkpoint of ours, or a foreign network that can be drawn."""
    from stylecli.checkpoint import is_foreign, load_network, read_header

    bundle = load_network(path)
    config = bundle.config
    header = {} if is_foreign(path) else read_header(path)
    facts: Facts = {
        "what": "training checkpoint" if "training" in header else "network", **_file(path),
        "configuration": f"{config.preset}: {config.preset_text or 'its own'}",
        "resolution": config.resolution, "channels": config.channels,
        "classes": config.label_dim, "z_dim": config.z_dim,
        "w_dim": config.w_dim if config.has_w else None,
        "mapping_layers": config.mapping_layers, "layers": config.num_layers,
    }  # fmt: skip
    for name in ("G_ema", "G", "D"):
        module = getattr(bundle, name)
        if module is not None:
            facts[f"{name} parameters"] = sum(p.numel() for p in module.parameters())
    if bundle.G_ema is not None or bundle.G is not None:
        if config.grows:
            facts["lod"] = bundle.generator.lod
        facts["psi"] = config.truncation_psi if config.has_w else None
        facts["psi_cutoff"] = config.truncation_cutoff
    facts |= {name: value for name, value in bundle.info.items() if name not in facts}
    if "training" in header:
        facts["training"] = header["training"]
    return facts


def _file(path: Path) -> Facts:
    from stylecli.checkpoint import network_digest

    return {"file": str(path), "bytes": path.stat().st_size, "sha256": network_digest(path)}


def _describe_foreign(path: Path) -> Facts:
    from stylecli.interop.families import describe_foreign

    try:
        facts = describe_foreign(path)
    except NetworkError as error:
        return _describe_features(path, error)
    if not facts["drawn by this version"]:
        return {"what": "network of another program", **_file(path), **facts}
    facts = {name: value for name, value in facts.items() if name in ("family", "settings")}
    return describe_network(path) | {"what": "network of another program"} | facts


def _describe_features(path: Path, error: NetworkError) -> Facts:
    """Describe the weights of a feature network; raise ``error`` if they are none either."""
    from stylecli import weights
    from stylecli.interop.feature_weights import read_feature_weights

    try:
        name, arrays = read_feature_weights(path)
    except WeightsError:
        raise error from None
    network = weights.find_feature_network(name)
    facts = {"what": "weights of a feature network", **_file(path), "network": name}
    return facts | {
        "which is": network.what, "used by": list(network.used_by), "licence": network.licence,
        "numbers": sum(array.size for array in arrays.values()),
        "published": weights.is_published(name, facts["sha256"]),
    }  # fmt: skip


def _describe_classifiers(path: Path) -> Facts:
    from stylecli.metrics.classifiers import load_classifiers

    loaded = load_classifiers(path)
    facts = {"what": "attribute classifiers", **_file(path), "resolution": loaded.resolution}
    facts["attributes"] = {name: list(values) for name, values in loaded.values.items()}
    facts["accuracy"] = loaded.accuracy
    return facts | {name: value for name, value in loaded.info.items() if name not in facts}
