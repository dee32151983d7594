"""Directions by name: what edits people write, their file, what they do to styles and pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import stylecli
from stylecli import files
from stylecli.errors import NetworkError, UsageError
from stylecli.latents import Edit, format_edits, parse_edits
from stylecli.latents.directions import (
    Direction,
    Directions,
    find_directions,
    read_directions,
    resolve,
    space_of,
    write_directions,
)
from stylecli.networks.headers import network_digest
from stylecli.networks.model import new_network
from stylecli.rendering import Drawing, Edits, render
from stylecli.sampling import map_seeds

DIGEST = "ab" * 32


def unit(width: int, seed: int = 0) -> Any:
    vector = np.random.default_rng(seed).standard_normal(width)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def directions_of(net: Any, digest: str = DIGEST) -> Directions:
    """Return three directions: in all layers, in the coarse ones, and of one layer's styles."""
    config = net.config
    space = space_of(config, "tiny.safetensors", digest)
    width = config.w_out_dim
    styles = net.generator.synthesis.style_maps()[1].layer.bias.shape[0]
    one = np.eye(styles, dtype=np.float32)[3]
    found = {"settings": {"samples": 10}, "accuracy": 0.9}
    rows = [
        Direction("smile", "labels", unit(width), 0.5, tuple(range(config.num_ws)), None, found),
        Direction("pose", "sefa", unit(width, 1), 2.0, (0, 1, 2, 3)),
        Direction("c1.3", "channels", one, 0.25, (1,), 1),
    ]
    return Directions(space, {row.name: row for row in rows})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("smile:2", [Edit("smile", 2.0)]),
        ("smile:+2,pose:-1", [Edit("smile", 2.0), Edit("pose", -1.0)]),
        ("smile@4-7:0.5", [Edit("smile", 0.5, "4-7")]),
        (
            "hair@0-3,6:1, x.y_z@coarse:-2",
            [Edit("hair", 1.0, "0-3,6"), Edit("x.y_z", -2, "coarse")],
        ),
    ],
)
def test_edits_are_read_and_written_alike(text: str, parts: list[Edit]) -> None:
    assert parse_edits(text) == parts
    assert parse_edits(",".join(map(str, parts))) == parts


@pytest.mark.parametrize(
    "text",
    ["", "smile", "smile:", "smile:x", "smile:nan", "smile:101", ":2", "smile@:2", "a b:1",
     "smile:1,pose", "smile:1e999", "../x:1"],
)  # fmt: skip
def test_what_is_no_edit_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected such as|expected NAME"):
        parse_edits(text)


def test_strengths_by_name_keep_all_their_digits() -> None:
    assert format_edits({"smile": 2, "pose@4-7": -0.1}) == "smile:+2,pose@4-7:-0.1"
    assert parse_edits(format_edits({"a": 1 / 3}))[0].strength == 1 / 3


def test_a_file_gives_back_what_was_written(tiny_network: Any, tmp_path: Path) -> None:
    written = directions_of(tiny_network)
    write_directions(tmp_path / "d.safetensors", written)

    read = read_directions(tmp_path / "d.safetensors")

    assert read.space == written.space
    assert list(read.by_name) == ["smile", "pose", "c1.3"]
    for name, one in written.by_name.items():
        np.testing.assert_array_equal(read[name].vector, one.vector)
        assert replace(read[name], vector=one.vector) == one
    assert [row["band"] for row in read.describe()] == ["all", "coarse", "1"]


def test_strength_is_in_standard_deviations_and_layers_are_kept(tiny_network: Any) -> None:
    directions = directions_of(tiny_network)
    ws = map_seeds(tiny_network.generator, [1, 2])

    edits = resolve(parse_edits("smile:+2,pose:-1,smile@fine:1"), directions)
    moved = edits.move(ws) - ws

    smile, pose = (torch.from_numpy(directions[name].vector) for name in ("smile", "pose"))
    expected = torch.stack([smile * 2 * 0.5] * 6)
    expected[:4] -= 2.0 * pose
    expected[-2:] += 0.5 * smile
    torch.testing.assert_close(moved, expected.expand(2, -1, -1), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("smlie:1", "'smile'"),
        ("beard:1", "'smile'|smile, pose"),
        ("smile@9:1", "0-5"),
        ("smile@huge:1", "huge"),
        ("c1.3@coarse:1", "leave out @coarse"),
    ],
)
def test_what_the_network_lacks_is_refused(tiny_network: Any, text: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        resolve(parse_edits(text), directions_of(tiny_network))


def test_pictures_are_drawn_with_edited_styles(tiny_network: Any) -> None:
    G = tiny_network.generator
    ws = map_seeds(G, [1, 2, 3])
    edits = resolve(parse_edits("smile:+3,pose:1"), directions_of(tiny_network))

    drawn = list(render(G, ws, Drawing(edits=edits)))

    np.testing.assert_array_equal(drawn, list(render(G, edits.move(ws))))
    assert not np.array_equal(drawn, list(render(G, ws)))


FAMILIES = [
    ("f", {"fmap_base": 64, "fmap_max": 8, "mapping_layers": 2, "mapping_fmaps": 8}),
    ("stylegan2", {"fmap_base": 64, "fmap_max": 8}),
    ("stylegan3-t", {"fmap_base": 64, "fmap_max": 8}),
    ("lucidrains", {"capacity": 2}),
]


@pytest.mark.parametrize(("preset", "fields"), FAMILIES)
def test_shifted_styles_show_in_the_quick_copy_too(preset: str, fields: dict[str, Any]) -> None:
    """A picture of the frozen copy equals that of the network whose bias was changed by hand."""
    net = new_network(preset, resolution=16, z_dim=8, w_dim=8, **fields)
    G = net.generator
    maps = G.synthesis.style_maps()
    ws = map_seeds(G, [1])
    shift = torch.zeros(maps[-1].layer.weight.shape[0])
    shift[1] = 2.0

    drawn = next(render(G, ws, Drawing(edits=Edits(shifts={len(maps) - 1: shift}))))

    before = next(render(G, ws))
    with torch.no_grad():
        maps[-1].layer.bias += shift  # type: ignore[operator]
    np.testing.assert_array_equal(drawn, next(render(G, ws)))
    assert not np.array_equal(drawn, before)


@pytest.mark.parametrize(("preset", "fields"), FAMILIES)
def test_style_maps_name_the_latent_that_they_take(preset: str, fields: dict[str, Any]) -> None:
    """Without its weights, a latent that has no other map changes nothing."""
    net = new_network(preset, resolution=16, z_dim=8, w_dim=8, **fields)
    G, config = net.generator, net.config
    maps = G.synthesis.style_maps()
    assert {one.latent for one in maps} == set(range(config.num_ws))
    assert all(one.layer.weight.shape[1] == config.w_out_dim for one in maps)
    with torch.no_grad():
        for one in maps:
            one.layer.weight.normal_()  # type: ignore[operator]
            if one.latent == 1:
                one.layer.weight.zero_()  # type: ignore[operator]
        for module in G.synthesis.modules():  # colours share the next layer's latent
            if type(module).__name__ == "ToRGB" and hasattr(module, "affine"):
                module.affine.weight.zero_()  # type: ignore[union-attr, operator]
        ws = torch.randn(1, config.num_ws, config.w_out_dim)
        changed = ws.clone()
        changed[:, 1] += 1.0
        if preset == "lucidrains":
            G.synthesis.b8.torgb.affine.weight.zero_()
        torch.testing.assert_close(G.synthesis(changed), G.synthesis(ws))
        changed[:, 0] += 1.0
        assert not torch.allclose(G.synthesis(changed), G.synthesis(ws))


def test_latents_of_a_sphere_keep_their_length() -> None:
    net = new_network("a", resolution=8, z_dim=8, fmap_base=64, fmap_max=8)
    assert space_of(net.config, "a", DIGEST).keeps_length
    ws = map_seeds(net.generator, [1])

    moved = Edits(torch.full((1, 8), 0.5), keeps_length=True).move(ws)

    torch.testing.assert_close(moved.norm(dim=-1), ws.norm(dim=-1))
    assert not torch.allclose(moved, ws)


def test_directions_of_another_network_are_refused(
    tiny_network: Any, tiny_network_file: Path, tmp_path: Path
) -> None:
    digest, config = network_digest(tiny_network_file), tiny_network.config
    folder = tmp_path / "out"
    with pytest.raises(NetworkError, match="stylecli directions find"):
        find_directions(folder, digest, config)
    write_directions(folder / "directions.safetensors", directions_of(tiny_network))
    with pytest.raises(NetworkError, match="another network"):
        find_directions(folder, digest, config)
    own = directions_of(tiny_network, digest)
    write_directions(folder / "directions.safetensors", own)
    assert find_directions(folder, digest, config).space == own.space
    narrow = Directions(replace(own.space, num_ws=4, style_sides=(4, 4, 8, 8)), {})
    write_directions(folder / "directions.safetensors", narrow)
    with pytest.raises(NetworkError, match="other layers"):
        find_directions(folder, digest, config)


def _spoil(header: dict[str, Any], tensors: dict[str, Any], how: str) -> None:
    row = header["directions"][0]
    if how == "nameless":
        row["name"] = "a\x1b[31m"
    elif how == "no list":
        header["directions"] = {"name": "smile"}
    elif how == "too many":
        header["directions"] = [row] * 2001
    elif how == "missing tensor":
        del tensors["1"]
    elif how == "long":
        tensors["0"] = tensors["0"] * 3
    elif how == "not finite":
        tensors["0"][0] = np.nan
    elif how == "wide":
        tensors["0"] = unit(9)
    elif how == "integers":
        tensors["0"] = np.ones(8, np.int32)
    elif how == "layer":
        row["layers"] = [6]
    elif how == "scale":
        row["scale"] = float("inf")
    elif how == "true":
        row["layers"] = [True]
    elif how == "space":
        header["space"]["num_ws"] = 10**9
    elif how == "digest":
        header["network"]["sha256"] = 5
    elif how == "kind":
        header["kind"] = "network"


SPOILT = ("nameless", "no list", "too many", "missing tensor", "long", "not finite", "wide",
          "integers", "layer", "scale", "true", "space", "digest", "kind")  # fmt: skip


@pytest.mark.parametrize("how", SPOILT)
def test_a_damaged_file_is_refused(tiny_network: Any, tmp_path: Path, how: str) -> None:
    path = tmp_path / "d.safetensors"
    write_directions(path, directions_of(tiny_network))
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        header = files.parse_json(file.metadata()["stylecli"], "header")
    tensors = load_file(path)
    _spoil(header, tensors, how)
    save_file(tensors, path, metadata={"stylecli": files.to_json(header).decode()})

    with pytest.raises(NetworkError) as error:
        read_directions(path)

    assert "d.safetensors" in str(error.value)


def test_python_edits_styles_and_pictures(tiny_network_file: Path, tiny_network: Any) -> None:
    own = directions_of(tiny_network, network_digest(tiny_network_file))
    ws = map_seeds(tiny_network.generator, [5])

    moved = stylecli.edit(ws, {"smile": 2, "pose": -1}, own)
    ((_, picture),) = stylecli.generate(
        tiny_network_file, 5, edit="smile:2,pose:-1", directions=own
    )

    np.testing.assert_array_equal(picture, next(render(tiny_network.generator, moved)))
    for edit, match in (("c1.3:1", "single styles"), ("smil:1", "'smile'")):
        with pytest.raises(UsageError, match=match):
            stylecli.edit(ws, edit, own)
    with pytest.raises(UsageError, match="need"):
        stylecli.edit(ws[:, :3], "smile:1", own)
    with pytest.raises(UsageError, match="no edit"):
        stylecli.generate(tiny_network_file, 5, directions=own)
    with pytest.raises(NetworkError, match="another network"):
        stylecli.grid(tiny_network_file, 5, edit="smile:1", directions=directions_of(tiny_network))
