"""Files <-> bundles: one safetensors file that explains itself, and foreign files on the way in.

The header's ``stylecli`` entry is JSON: format version, configuration, each network's lod, and
``info`` (counters, tool version, data digest, licence of a converted source). Tensors are named
``G_ema.<parameter>``, ``G.<parameter>``, ``D.<parameter>``; what a training checkpoint adds
(``optimizer_G.…``, random states) is ignored when only networks are wanted.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import Tensor, nn

from stylecli import __version__, files
from stylecli.errors import NetworkError
from stylecli.interop.conversion import difference_table
from stylecli.interop.families import read_foreign_networks, write_state_dict
from stylecli.networks.config import NETWORK_NAMES, NetworkConfig
from stylecli.networks.headers import (
    FORMAT,
    STATE_DICT,
    config_of,
    is_foreign,
    network_digest,
    read_header,
)
from stylecli.networks.model import Bundle, Discriminator, Generator
from stylecli.networks.registry import build_discriminator, build_generator
from stylecli.workspace import find_network

Network = Bundle | Path | str  # networks, or where they are: what public functions take


def load_network(path: Path | str, *, drawing: bool = False) -> Bundle:
    """Read networks from our .safetensors or a foreign file: official pickles, torch checkpoints.

    A run's folder is its newest network, ``RUN/best`` the one that measured best, ``shipped`` the
    one that comes with the package. Returns a Bundle in eval mode, on the CPU, in
    float32; networks the file lacks are None. ``drawing`` reads the one alone that makes pictures,
    a third of the usual file. Nothing in the file is executed. Raises NetworkError, with a table of
    differences when tensors are missing, unknown or of another shape.
    """
    path = find_network(Path(path)).path
    if is_foreign(path):
        foreign = read_foreign_networks(path)
        tensors = {
            f"{name}.{key}": torch.from_numpy(foreign.networks[name][key])
            for name in _wanted(foreign.networks, drawing)
            for key in foreign.networks[name]
        }
        return _build(path, foreign.config, tensors, foreign.lods, foreign.info)
    header, tensors = read_tensors(path, lambda names: _wanted(names, drawing))
    config = config_of(path, header)
    lods, info = header.get("lods", {}), header.get("info", {})
    if (
        not isinstance(lods, dict)
        or not isinstance(info, dict)
        or not all(map(files.is_number, lods.values()))
    ):
        raise NetworkError(f"{path} has a damaged stylecli header")
    return _build(path, config, tensors, lods, info)


def open_network(net: Network) -> Bundle:
    """Return networks as they are, or the one that makes pictures, read from a path."""
    return net if isinstance(net, Bundle) else load_network(net, drawing=True)


def save_network(
    path: Path | str, bundle: Bundle, *, extra: Mapping[str, Any] | None = None
) -> None:
    """Write a bundle's networks to one .safetensors file, atomically.

    ``extra`` is added to ``info``. Networks that are None are left out.
    """
    info = {**bundle.info, **(extra or {}), "stylecli": __version__}
    write_tensors(path, network_tensors(bundle), network_header(bundle, info))


def convert_network(source: Path | str, target: Path | str) -> Bundle:
    """Read a foreign network file and write it as one of ours, then read that back and compare.

    ``info`` of the written file holds the source's name, family, licence and SHA-256. Raises
    NetworkError for a file that is ours already, for what ``load_network`` refuses, and, leaving no
    file behind, when what was written is not what was read.
    """
    if Path(source).is_file() and not is_foreign(source):
        read_header(source)  # says what is wrong with a file that is neither
        raise NetworkError(f"{source} is already a network of stylecli: nothing to convert")
    bundle = load_network(source)
    bundle.info["source_sha256"] = network_digest(source)
    save_network(target, bundle)
    again = load_network(target)
    wanted, found = network_tensors(bundle), network_tensors(again)
    same = wanted.keys() == found.keys() and all(
        torch.equal(wanted[key], found[key]) for key in wanted
    )
    if not same or network_header(again, {}) != network_header(bundle, {}):
        Path(target).unlink()
        raise NetworkError(f"{target} does not read back as it was written: check the disk")
    return again


def write_state_dict_file(
    source: Path | str, target: Path | str, *, which: str = "G_ema", layout: str = "nvidia"
) -> dict[str, Any]:
    """Write one network of a file under another program's names: safetensors, read back, compared.

    Returns what the header's ``state_dict`` entry says: layout, network, class_name and arguments
    of the module there, licence and SHA-256 of the source. Raises UsageError for what the other
    program does not have, NetworkError for a network that the file lacks.
    """
    bundle = load_network(source)
    network = getattr(bundle, which)
    if network is None:
        here = [name for name in NETWORK_NAMES if getattr(bundle, name) is not None]
        raise NetworkError(f"{source} has no {which}: it holds {', '.join(here)}")
    own = {key: value.numpy() for key, value in network.state_dict().items()}
    arrays, module = write_state_dict(which, own, bundle.config, layout)
    clamp = getattr(bundle.config, "conv_clamp", None)
    told = {
        "layout": layout, "network": which, **module, "stylecli": __version__,
        "source": Path(source).name, "source_sha256": network_digest(source),
        "source_licence": bundle.licence,
    }  # fmt: skip
    # Not ascontiguousarray, which makes a vector of a single number.
    plain = {key: np.asarray(array, order="C") for key, array in arrays.items()}
    metadata = {"format": "pt", STATE_DICT: files.to_json(told).decode()}
    size = sum(array.nbytes for array in plain.values()) + len(str(metadata)) + (64 << 10)
    with files.room_for(Path(target), size), files.replacing(target) as temporary:
        save_arrays(plain, temporary, metadata=metadata)
    again = load_arrays(target)
    if again.keys() != plain.keys() or any(
        plain[key].shape != again[key].shape or plain[key].tobytes() != again[key].tobytes()
        for key in plain
    ):
        Path(target).unlink()
        raise NetworkError(f"{target} does not read back as it was written: check the disk")
    clamps = layout == "rosinality" and clamp is not None
    note = (
        f"features above {clamp:g} are clamped here and not there: pictures may differ where "
        "that happens" if clamps else None
    )  # fmt: skip
    return told | {"tensors": len(plain), "note": note}


def describe_network(path: Path) -> dict[str, Any]:
    """Describe a network or training checkpoint of ours, or a foreign network that can be drawn.

    Returns facts by name, what ``info`` of the file says last. Raises as load_network does.
    """
    bundle = load_network(path)
    config = bundle.config
    header = {} if is_foreign(path) else read_header(path)
    facts: dict[str, Any] = {
        "what": "training checkpoint" if "training" in header else "network", **describe_file(path),
        "configuration": f"{config.preset}: {config.preset_text or 'its own'}",
        **config.grid.facts(config.resolution), "channels": config.channels,
        "classes": config.label_dim, "z_dim": config.z_dim,
        "w_dim": config.w_dim if config.has_w else None,
        "mapping_layers": config.mapping_layers, "layers": config.num_layers,
    }  # fmt: skip
    for name in NETWORK_NAMES:
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


def describe_file(path: Path) -> dict[str, Any]:
    """Return a file's path, size in bytes and SHA-256, which every description starts with."""
    return {"file": str(path), "bytes": path.stat().st_size, "sha256": network_digest(path)}


def network_tensors(bundle: Bundle) -> dict[str, Tensor]:
    """Return every network's state under ``G_ema.``, ``G.`` and ``D.``."""
    return {
        f"{name}.{key}": tensor
        for name in NETWORK_NAMES
        if (network := getattr(bundle, name)) is not None
        for key, tensor in network.state_dict().items()
    }


def network_header(bundle: Bundle, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON header that describes a bundle."""
    lods = {
        name: network.lod
        for name in NETWORK_NAMES
        if bundle.config.grows and (network := getattr(bundle, name)) is not None
    }
    return {"config": bundle.config.to_dict(), "lods": lods, "info": dict(info)}


def write_tensors(
    path: Path | str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> None:
    """Write tensors and a JSON header as safetensors: temporary name, fsync, rename.

    Raises StyleCLIError, with the file as it was, when the disk is full.
    """
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    metadata = {"stylecli": files.to_json({"format": FORMAT, **header}).decode()}
    size = sum(tensor.nbytes for tensor in plain.values()) + len(str(metadata)) + (64 << 10)
    with files.room_for(Path(path), size), files.replacing(path) as temporary:
        save_file(plain, temporary, metadata=metadata)


def read_tensors(
    path: Path | str, choose: Callable[[set[str]], Iterable[str]] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file of write_tensors; raise NetworkError when it is another kind of file.

    ``choose`` gets what the names begin with, up to a point, and returns which of it is read.
    """
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if choose is not None:
                chosen = set(choose({name.partition(".")[0] for name in names}))
                names = [name for name in names if name.partition(".")[0] in chosen]
            return header, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise NetworkError(f"{path} is not a readable safetensors file: {error}") from None


def _wanted(there: Container[str], drawing: bool) -> list[str]:
    """Return which networks of a file are read; for ``drawing`` its generator alone."""
    names = [name for name in NETWORK_NAMES if name in there]
    return names[:1] if drawing else names


def load_state(
    path: Path | str, name: str, network: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Fill a network from tensors under its name; raise NetworkError listing differences."""
    prefix = f"{name}."
    found = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    wanted = network.state_dict()
    table = difference_table(
        {key: tuple(value.shape) for key, value in found.items()},
        {key: tuple(value.shape) for key, value in wanted.items()},
        prefix,
    )
    strange = [f"type        {prefix}{key}: complex" for key in found if found[key].is_complex()]
    if table or strange:
        rows = "\n  ".join(filter(None, [table, *strange[:1]]))
        raise NetworkError(f"{path} does not fit its own configuration:\n  {rows}")
    network.load_state_dict({key: value.float() for key, value in found.items()})


def _build(
    path: Path,
    config: NetworkConfig,
    tensors: Mapping[str, Tensor],
    lods: Mapping[str, float],
    info: Mapping[str, Any],
) -> Bundle:
    bundle = Bundle(config, info=dict(info))
    for name in NETWORK_NAMES:
        if not any(key.startswith(f"{name}.") for key in tensors):
            continue
        # A few bytes can claim any size, so what is there is counted before memory is taken.
        here = sum(value.numel() for key, value in tensors.items() if key.startswith(f"{name}."))
        if here < (needed := config.count_weights(name)):
            raise NetworkError(
                f"{path} holds {here:,} numbers of {name}: its configuration needs at least "
                f"{needed:,}"
            )
        with torch.random.fork_rng(devices=[]):  # initial values are drawn and overwritten
            network: Generator | Discriminator = (
                build_discriminator(config) if name == "D" else build_generator(config)
            )
        load_state(path, name, network, tensors)
        try:
            network.lod = float(lods.get(name, 0.0))
        except (TypeError, ValueError) as error:
            raise NetworkError(f"{path} has an unusable level of detail: {error}") from None
        network.eval()
        setattr(bundle, name, network)
    if bundle.G_ema is None and bundle.G is None and bundle.D is None:
        raise NetworkError(f"{path} holds no network")
    return bundle
