"""Tiny files in other programs' formats, made by code: what readers take, and what they refuse.

Classes with the names of the originals exist only while a file is pickled.
"""

import contextlib
import io
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

FEATURES = 2


@contextlib.contextmanager
def named_class(module: str, name: str) -> Iterator[type]:
    """Yield a class that pickles under a foreign name."""
    parts = module.split(".")
    paths = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
    before = {path: sys.modules.get(path) for path in paths}
    for path in paths:
        sys.modules[path] = types.ModuleType(path)
    kind = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, kind)
    try:
        yield kind
    finally:
        for path, was in before.items():
            sys.modules.pop(path)
            if was is not None:
                sys.modules[path] = was


def random_arrays(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Any]:
    rng = np.random.RandomState(seed)
    return {name: np.asarray(rng.randn(*shape), np.float32) for name, shape in shapes.items()}


def tf_variables() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return variables of mapping, synthesis and discriminator of a 4 px StyleGAN."""
    c = FEATURES
    layer = {"bias": (c,), "Noise/weight": (c,), "StyleMod/weight": (c, 2 * c),
             "StyleMod/bias": (2 * c,)}  # fmt: skip
    synthesis: dict[str, tuple[int, ...]] = {
        "noise0": (1, 1, 4, 4), "noise1": (1, 1, 4, 4), "4x4/Const/const": (1, c, 4, 4),
        "4x4/Conv/weight": (3, 3, c, c), "ToRGB_lod0/weight": (1, 1, c, 3), "ToRGB_lod0/bias": (3,),
        **{f"4x4/{name}/{part}": shape for name in ("Const", "Conv") for part, shape in
           layer.items()},
    }  # fmt: skip
    critic: dict[str, tuple[int, ...]] = {
        "FromRGB_lod0/weight": (1, 1, 3, c), "FromRGB_lod0/bias": (c,),
        "4x4/Conv/weight": (3, 3, c + 1, c), "4x4/Conv/bias": (c,),
        "4x4/Dense0/weight": (16 * c, c), "4x4/Dense0/bias": (c,),
        "4x4/Dense1/weight": (c, 1), "4x4/Dense1/bias": (1,),
    }  # fmt: skip
    mapping: dict[str, tuple[int, ...]] = {"Dense0/weight": (c, c), "Dense0/bias": (c,)}
    return random_arrays(mapping), random_arrays(synthesis), random_arrays(critic)


@contextlib.contextmanager
def tf_network() -> Iterator[Any]:
    """Yield what makes a Network of NVIDIA's TensorFlow programs, to be pickled inside."""
    with named_class("dnnlib.tflib.network", "Network") as Network:  # noqa: N806

        def network(build: str, kwargs: dict[str, Any], variables: Any, parts: Any = None) -> Any:
            made: Any = Network()
            made.__dict__ = {
                "version": 3, "name": "G", "static_kwargs": kwargs, "components": parts or {},
                "build_module_src": "raise SystemExit('ran')", "build_func_name": build,
                "variables": list(variables.items()),
            }  # fmt: skip
            return made

        yield network


def tf_stylegan2(G: dict[str, Any], D: dict[str, Any], **settings: Any) -> bytes:
    """Return a pickled (G, D, Gs) of StyleGAN2 in the TensorFlow layout; settings of both."""
    with tf_network() as network:
        own = {name: G[name] for name in ("lod", "dlatent_avg") if name in G}
        mapping = {name: array for name, array in G.items()
                   if name.startswith(("Dense", "Label"))}  # fmt: skip
        synthesis = {name: G[name] for name in G if name not in own and name not in mapping}
        given = {name: value for name, value in settings.items() if not name.startswith("D_")}
        both = ("num_channels", "resolution", "label_size", "fmap_base", "fmap_max")
        judged = {name: settings[name] for name in both if name in settings}
        judged |= {name[2:]: settings[name] for name in settings if name.startswith("D_")}
        parts = {"synthesis": network("G_synthesis_stylegan2", given, synthesis),
                 "mapping": network("G_mapping", given, mapping)}  # fmt: skip
        generator = network("G_main", given, own, parts)
        return pickle.dumps((generator, network("D_stylegan2", judged, D), generator), 4)


def tf_triple(protocol: int = 4, **settings: Any) -> bytes:
    """Return a pickled (G, D, Gs) of a 4 px StyleGAN in NVIDIA's TensorFlow layout."""
    mapping, synthesis, critic = tf_variables()
    given = {"num_channels": 3, "resolution": 4, "label_size": 0, "fmap_base": 2 * FEATURES,
             "fmap_max": FEATURES}  # fmt: skip
    style = {"latent_size": FEATURES, "dlatent_size": FEATURES, "mapping_fmaps": FEATURES,
             "mapping_layers": 1}  # fmt: skip
    with tf_network() as network:

        def generator() -> Any:
            own = {"lod": np.float32(0), "dlatent_avg": np.zeros(FEATURES, np.float32)}
            parts = {"synthesis": network("G_synthesis", {**given, **style}, synthesis),
                     "mapping": network("G_mapping", {**given, **style}, mapping)}  # fmt: skip
            return network("G_style", {**given, **style, **settings}, own, parts)

        triple = (generator(), network("D_basic", given, critic), generator())
        return pickle.dumps(triple, protocol)


def stylegan2_shapes() -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return the shapes of generator and discriminator of a 4 px StyleGAN2."""
    c = FEATURES
    styled: dict[str, tuple[int, ...]] = {"affine.weight": (c, c), "affine.bias": (c,)}
    conv = {"weight": (c, c, 3, 3), "bias": (c,), "noise_strength": (), **styled}
    G: dict[str, tuple[int, ...]] = {
        "mapping.fc0.weight": (c, c), "mapping.fc0.bias": (c,), "synthesis.b4.const": (c, 4, 4),
        **{f"synthesis.b4.conv1.{name}": shape for name, shape in conv.items()},
        **{f"synthesis.b4.torgb.{name}": shape for name, shape in
           {"weight": (3, c, 1, 1), "bias": (3,), **styled}.items()},
    }  # fmt: skip
    D: dict[str, tuple[int, ...]] = {
        "b4.fromrgb.weight": (c, 3, 1, 1), "b4.fromrgb.bias": (c,),
        "b4.conv.weight": (c, c + 1, 3, 3), "b4.conv.bias": (c,),
        "b4.fc.weight": (c, 16 * c), "b4.fc.bias": (c,),
        "b4.out.weight": (1, c), "b4.out.bias": (1,),
    }  # fmt: skip
    return G, D


def ada_snapshot(
    *, taps: float = 1.0, D_settings: dict[str, Any] | None = None, **settings: Any
) -> bytes:
    """Return a snapshot of persistent modules; its storages are nested torch streams.

    ``settings`` are further arguments of G's synthesis; ``taps`` spoils the stored filter.
    """
    import torch

    f = np.outer([1, 3, 3, 1], [1, 3, 3, taps]).astype(np.float32) / 64
    with named_class("torch_utils.persistence", "_reconstruct_persistent_obj") as rebuild:

        class Module:
            def __init__(self, name: str, arrays: Any, buffers: Any, **state: Any) -> None:
                def here(values: Any) -> Any:
                    return OrderedDict((key, values[key]) for key in values if "." not in key)

                def below(values: Any, child: str) -> Any:
                    start = f"{child}."
                    return {key.removeprefix(start): values[key] for key in values
                            if key.startswith(start)}  # fmt: skip

                names = {key.split(".")[0] for key in (*arrays, *buffers) if "." in key}
                self.meta = {
                    "type": "class", "version": 6, "module_src": "raise SystemExit('ran')",
                    "class_name": name,
                    "state": {
                        "_parameters": OrderedDict(here(arrays), weird=None),
                        "_buffers": here(buffers), "cutoff": np.float64(0.5),
                        "_modules": OrderedDict(
                            (child, Module(child, below(arrays, child), below(buffers, child)))
                            for child in sorted(names)
                        ),
                        "_non_persistent_buffers_set": set(), **state,
                    },
                }  # fmt: skip

            def __reduce__(self) -> Any:
                return rebuild, (self.meta,)

        made = [
            {name: torch.nn.Parameter(torch.as_tensor(array)) for name, array in
             random_arrays(shapes).items()}
            for shapes in stylegan2_shapes()
        ]  # fmt: skip
        buffers = {
            "mapping.w_avg": torch.zeros(FEATURES, dtype=torch.float16),
            "synthesis.b4.conv1.noise_const": torch.ones(4, 4).t(),
            "synthesis.b4.resample_filter": torch.as_tensor(f),
        }
        shared = {"img_resolution": 4, "img_channels": 3, "c_dim": 0}
        width = {"channel_base": 4 * FEATURES, "channel_max": FEATURES}
        given = {"z_dim": FEATURES, "w_dim": FEATURES, **shared,
                 "mapping_kwargs": {"num_layers": 1},
                 "synthesis_kwargs": {**width, **settings}}  # fmt: skip
        G = Module("Generator", made[0], buffers, img_resolution=4, img_channels=3, z_dim=FEATURES,
                   c_dim=0, w_dim=FEATURES, num_ws=2, _init_kwargs=given,
                   _init_args=())  # fmt: skip
        D = Module("Discriminator", made[1], {"b4.conv.resample_filter": torch.as_tensor(f)},
                   _init_kwargs={**shared, **width, **(D_settings or {})},
                   _init_args=())  # fmt: skip
        data = {"class_name": "training.dataset.ImageFolderDataset", "resolution": 4}
        return pickle.dumps({"G": G, "D": D, "G_ema": G, "training_set_kwargs": data}, 4)


def rosinality_arrays() -> dict[str, dict[str, Any]]:
    """Return state dicts of rosinality's StyleGAN: 8 px, with an untrained block of 16 px."""
    c = FEATURES
    shapes: dict[str, tuple[int, ...]] = {}
    for block in range(3):
        name = f"generator.progression.{block}"
        if block:
            shapes[f"{name}.conv1.1.conv.weight_orig"] = (c, c, 3, 3)
            shapes[f"{name}.conv1.1.conv.bias"] = (c,)
            shapes[f"{name}.conv1.2.weight"] = shapes[f"{name}.conv1.2.weight_flip"] = (c, 1, 3, 3)
        else:
            shapes[f"{name}.conv1.input"] = (1, c, 4, 4)
        shapes[f"{name}.conv2.conv.weight_orig"] = (c, c, 3, 3)
        shapes[f"{name}.conv2.conv.bias"] = (c,)
        for half in (1, 2):
            shapes[f"{name}.noise{half}.weight_orig"] = (1, c, 1, 1)
            shapes[f"{name}.adain{half}.style.linear.weight_orig"] = (2 * c, c)
            shapes[f"{name}.adain{half}.style.linear.bias"] = (2 * c,)
        shapes[f"generator.to_rgb.{block}.conv.weight_orig"] = (3, c, 1, 1)
        shapes[f"generator.to_rgb.{block}.conv.bias"] = (3,)
    shapes |= {"style.1.linear.weight_orig": (c, c), "style.1.linear.bias": (c,)}
    generator = random_arrays(shapes)
    generator["generator.to_rgb.2.conv.bias"][:] = 0
    critic: dict[str, tuple[int, ...]] = {"linear.linear.weight_orig": (1, c),
                                          "linear.linear.bias": (1,)}  # fmt: skip
    for index in range(3):
        last = index == 2
        name = f"progression.{index}"
        first, second = f"{name}.conv1.0.conv", f"{name}.conv2.{0 if last else 1}.conv"
        critic |= {
            f"from_rgb.{index}.0.conv.weight_orig": (c, 3, 1, 1),
            f"from_rgb.{index}.0.conv.bias": (c,),
            f"{first}.weight_orig": (c, c + last, 3, 3), f"{first}.bias": (c,),
            f"{second}.weight_orig": (c, c, 4, 4) if last else (c, c, 3, 3), f"{second}.bias": (c,),
        }  # fmt: skip
    return {"g_running": generator, "generator": generator, "discriminator": random_arrays(critic)}


def rosinality2_arrays() -> dict[str, Any]:
    """Return what rosinality's StyleGAN2 keeps of an 8 px network, without its filters."""
    from stylecli.interop import rosinality_stylegan2 as names
    from stylecli.networks.stylegan2_config import StyleGAN2Config

    sizes = {"z_dim": FEATURES, "w_dim": FEATURES, "mapping_layers": 1}
    config = StyleGAN2Config(resolution=8, fmap_base=8 * FEATURES, fmap_max=FEATURES, **sizes)
    tables = {"g_ema": names.generator_table(config), "d": names.discriminator_table(config)}
    return {
        part: random_arrays({theirs: tensor.there for theirs, tensor in table.items()})
        for part, table in tables.items()
    }


def lucidrains_arrays() -> dict[str, Any]:
    """Return a 4 px network of lucidrains' StyleGAN2: S and G alone."""
    dense = {"S.net.0": (2, 2), "G.blocks.0.to_style1": (2, 2), "G.blocks.0.to_style2": (2, 2),
             "G.blocks.0.to_rgb.to_style": (2, 2), "G.blocks.0.to_noise1": (2, 1),
             "G.blocks.0.to_noise2": (2, 1), "G.initial_conv": (2, 2, 3, 3)}  # fmt: skip
    return random_arrays({
        **{f"{name}.weight": shape for name, shape in dense.items()},
        **{f"{name}.bias": shape[:1] for name, shape in dense.items()},
        "G.initial_block": (1, 2, 4, 4), "G.blocks.0.conv1.weight": (2, 2, 3, 3),
        "G.blocks.0.conv2.weight": (2, 2, 3, 3), "G.blocks.0.to_rgb.conv.weight": (3, 2, 1, 1),
    })  # fmt: skip


def huangzh13_generator(classes: int = 0) -> dict[str, Any]:
    """Return the state dict of huangzh13's generator at 8 px."""
    c = FEATURES
    shapes: dict[str, tuple[int, ...]] = {
        "g_mapping.map.dense0.weight": (c, 2 * c if classes else c), "g_mapping.map.dense0.bias":
        (c,), "truncation.avg_latent": (c,), "g_synthesis.init_block.const": (1, c, 4, 4),
        "g_synthesis.init_block.bias": (c,), "g_synthesis.init_block.conv.weight": (c, c, 3, 3),
        "g_synthesis.init_block.conv.bias": (c,),
    }  # fmt: skip
    if classes:
        shapes["class_embedding.weight"] = (classes, c)
    for block in ("init_block", "blocks.0"):
        for half in (1, 2):
            name = f"g_synthesis.{block}.epi{half}"
            shapes[f"{name}.top_epi.noise.weight"] = (c,)
            shapes[f"{name}.style_mod.lin.weight"] = (2 * c, c)
            shapes[f"{name}.style_mod.lin.bias"] = (2 * c,)
    for conv in ("conv0_up", "conv1"):
        shapes[f"g_synthesis.blocks.0.{conv}.weight"] = (c, c, 3, 3)
        shapes[f"g_synthesis.blocks.0.{conv}.bias"] = (c,)
    for index in range(2):
        shapes[f"g_synthesis.to_rgb.{index}.weight"] = (3, c, 1, 1)
        shapes[f"g_synthesis.to_rgb.{index}.bias"] = (3,)
    kernel = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32)[None, None] / 16
    return {**random_arrays(shapes), "g_synthesis.blocks.0.conv0_up.intermediate.kernel": kernel}


def huangzh13_discriminator() -> dict[str, Any]:
    """Return the state dict of huangzh13's discriminator at 8 px."""
    c = FEATURES
    shapes: dict[str, tuple[int, ...]] = {
        "final_block.conv.weight": (c, c + 1, 3, 3), "final_block.conv.bias": (c,),
        "final_block.dense0.weight": (c, 16 * c), "final_block.dense0.bias": (c,),
        "final_block.dense1.weight": (1, c), "final_block.dense1.bias": (1,),
    }  # fmt: skip
    for conv in ("conv0", "conv1_down"):
        shapes |= {f"blocks.0.{conv}.weight": (c, c, 3, 3), f"blocks.0.{conv}.bias": (c,)}
    for index in range(2):
        shapes |= {f"from_rgb.{index}.weight": (c, 3, 1, 1), f"from_rgb.{index}.bias": (c,)}
    kernel = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32)[None, None] / 16
    mean = np.full((1, 1, 2, 2), 0.25, np.float32)
    return {**random_arrays(shapes), "blocks.0.blur.kernel": kernel,
            "blocks.0.conv1_down.downscale.blur.kernel": mean}  # fmt: skip


def torch_file(arrays: Any, *, zipped: bool = True) -> bytes:
    """Return what torch.save writes for nested dicts of arrays."""
    import torch

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return OrderedDict((key, tensors(item)) for key, item in value.items())
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    buffer = io.BytesIO()
    torch.save(tensors(arrays), buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def own_network() -> bytes:
    """Return a network file of ours: G_ema at 4 px."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from stylecli.checkpoint import save_network
    from stylecli.networks.model import new_network

    sizes = {"fmap_base": 4, "fmap_max": 2, "z_dim": 2, "w_dim": 2, "mapping_layers": 1}
    network = new_network("f", resolution=4, mapping_fmaps=2, **sizes)
    network.G = network.D = None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        save_network(path, network)
        return path.read_bytes()


def r3gan_snapshot(G: dict[str, Any], D: dict[str, Any] | None = None, **attributes: Any) -> bytes:
    """Return {G_ema, D} of state dicts as plain modules; ``attributes`` are the generator's."""
    with named_class("R3GAN.Networks", "GeneratorStage") as inner:

        def module(kind: Any, arrays: dict[str, Any], **state: Any) -> Any:
            below: dict[str, dict[str, Any]] = {}
            for name in sorted(name for name in arrays if "." in name):
                child, rest = name.split(".", 1)
                below.setdefault(child, {})[rest] = arrays[name]
            made = kind()
            made.__dict__ = {
                "_parameters": {name: a for name, a in arrays.items() if "." not in name},
                "_buffers": {},
                "_modules": {child: module(inner, inside) for child, inside in below.items()},
                **state,
            }
            return made

        with named_class("training.networks", "Generator") as outer:
            judge = type("Discriminator", (), {"__module__": "training.networks"})
            sys.modules["training.networks"].Discriminator = judge  # type: ignore[attr-defined]
            tree = {"G_ema": module(outer, G, **attributes)}
            if D is not None:
                tree["D"] = module(judge, D)
            return pickle.dumps(tree, 4)


def r3gan_shapes() -> tuple[dict[str, tuple[int, ...]], ...]:
    """Return the shapes of G and D of a 4 px R3GAN with labels, a block in each."""
    c, stage = FEATURES, "Model.MainLayers.0.Layers"

    def block(index: int) -> dict[str, tuple[int, ...]]:
        here = f"{stage}.{index}"
        return {
            f"{here}.LinearLayer1.Layer.weight": (2 * c, c, 1, 1),
            f"{here}.LinearLayer2.Layer.weight": (2 * c, c, 3, 3),
            f"{here}.LinearLayer3.Layer.weight": (c, 2 * c, 1, 1),
            f"{here}.NonLinearity1.Bias": (2 * c,), f"{here}.NonLinearity2.Bias": (2 * c,),
        }  # fmt: skip

    return (
        {f"{stage}.0.Basis": (c, 4, 4), f"{stage}.0.LinearLayer.weight": (c, 2 * c), **block(1),
         "Model.AggregationLayer.Layer.weight": (3, c, 1, 1),
         "Model.EmbeddingLayer.weight": (c, 2)},
        {"Model.ExtractionLayer.Layer.weight": (c, 3, 1, 1), **block(0),
         f"{stage}.1.Basis.weight": (c, 1, 4, 4), f"{stage}.1.LinearLayer.weight": (c, c),
         "Model.EmbeddingLayer.weight": (c, 2)},
    )  # fmt: skip


def all_kinds() -> dict[str, bytes]:
    """Return one small file of every kind by name."""
    return {
        "tf-2": tf_triple(2), "tf-4": tf_triple(4), "ada": ada_snapshot(),
        "r3gan": r3gan_snapshot(*map(random_arrays, r3gan_shapes()), z_dim=FEATURES, c_dim=2),
        "rosinality-zip": torch_file(rosinality_arrays()),
        "rosinality-stream": torch_file(rosinality_arrays()["g_running"], zipped=False),
        "rosinality2-zip": torch_file(rosinality2_arrays() | {"latent_avg": np.zeros(FEATURES)}),
        "rosinality2-stream": torch_file(rosinality2_arrays()["g_ema"], zipped=False),
        "lucidrains": torch_file({"GAN": lucidrains_arrays(), "version": "1.9.0"}),
        "huangzh13-zip": torch_file(huangzh13_generator(3)),
        "huangzh13-stream": torch_file(huangzh13_discriminator(), zipped=False),
    }  # fmt: skip
