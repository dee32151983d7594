"""Find directions: of weights, variance, labels and channels, on networks whose answer is known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.latents import Search, finding, searching
from stylecli.latents.directions import Directions, space_of
from stylecli.latents.finding import (
    correct_leaks,
    find_channels,
    find_ganspace,
    find_in_activations,
    find_labels,
    find_sefa,
    without_kept,
)
from stylecli.latents.judging import (
    Judging,
    Label,
    draw_latents,
    judge_faces,
    measure_effects,
    parse_label,
    usual_labels,
)
from stylecli.latents.searching import check_new, found_before, run_search
from stylecli.networks.model import Generator, new_network
from stylecli.statistics.components import weight_directions

VALUES = {"light": ("dark", "light"), "half": ("left", "right"), "tone": ("a", "b", "c")}


def judge(images: Tensor) -> dict[str, Tensor]:
    """See how light a picture is, and which half is lighter: probabilities from means."""
    means = images.mean(dim=(1, 2, 3))
    sides = images.mean(dim=(1, 2))
    half = sides[:, : sides.shape[1] // 2].mean(1) - sides[:, sides.shape[1] // 2 :].mean(1)
    light, left = torch.sigmoid(40 * means), torch.sigmoid(40 * half)
    tone = torch.softmax(torch.stack([-9 * means, 0 * means, 9 * means], dim=1), dim=1)
    return {
        "light": torch.stack([1 - light, light], dim=1),
        "half": torch.stack([left, 1 - left], dim=1),
        "tone": tone,
    }


@pytest.fixture(scope="module")
def net() -> Any:
    made = new_network(
        "f", resolution=8, z_dim=8, w_dim=8, fmap_base=32, fmap_max=8, mapping_layers=2,
        mapping_fmaps=8,
    )  # fmt: skip
    with torch.no_grad():  # colours that differ from face to face
        for one in made.generator.synthesis.style_maps():
            one.layer.weight.mul_(3.0)  # type: ignore[operator]
    return made


@pytest.fixture(scope="module")
def space(net: Any) -> Any:
    return space_of(net.config, "made.safetensors", "cd" * 32)


@pytest.fixture(scope="module")
def faces(net: Any) -> Any:
    return judge_faces(net.generator, 600, judge, VALUES)


def test_sefa_names_every_band_and_sorts(net: Any, space: Any) -> None:
    found = find_sefa(net.generator, space, count=3)

    stems = ("sefa", "sefa-coarse", "sefa-fine")
    assert [one.name for one in found] == [
        f"{stem}.{number}" for stem in stems for number in (1, 2, 3)
    ]
    weights = [one.layer.weight.detach().numpy() for one in net.generator.synthesis.style_maps()]
    values, vectors = weight_directions(weights)
    np.testing.assert_allclose(found[0].vector, vectors[0], atol=1e-6)
    assert found[0].found["eigenvalue"] == pytest.approx(values[0])
    assert found[0].layers == tuple(range(4))
    (named,) = find_sefa(net.generator, space, "0,2", count=1)
    assert (named.name, named.layers) == ("sefa-0_2.1", (0, 2))
    chosen, _ = weight_directions([weights[0], weights[2]])
    assert named.found["eigenvalue"] == pytest.approx(chosen[0])


def test_a_scale_is_the_deviation_of_faces(net: Any, space: Any) -> None:
    one = find_sefa(net.generator, space, count=1)[0]
    w = torch.cat(list(draw_latents(net.generator, 10_000, 1)))

    along = w.double().numpy() @ one.vector
    assert one.scale == pytest.approx(float(along.std()), rel=1e-6)


@pytest.mark.parametrize(
    ("preset", "fields"),
    [
        ("stylegan2", {"fmap_base": 64, "fmap_max": 8}),
        ("stylegan3-t", {"fmap_base": 64, "fmap_max": 8}),
        ("lucidrains", {"capacity": 2}),
        ("a", {"fmap_base": 64, "fmap_max": 8}),
        ("r3gan", {"fmap_base": 64, "fmap_max": 8, "label_dim": 3, "embed_dim": 4}),
    ],
)
def test_sefa_works_for_every_family(preset: str, fields: dict[str, Any]) -> None:
    if preset not in ("a", "r3gan"):
        fields = {**fields, "w_dim": 8}
    made = new_network(preset, resolution=16, z_dim=8, **fields)
    with torch.no_grad():
        for one in made.generator.synthesis.style_maps():
            one.layer.weight.normal_()  # type: ignore[operator]
    own = space_of(made.config, preset, "cd" * 32)

    found = find_sefa(made.generator, own, count=2)

    assert {len(one.layers) for one in found} >= {own.num_ws}
    width = made.config.w_out_dim
    assert all(one.scale > 0 and one.vector.shape == (width,) for one in found)
    assert all(not one.vector[8:].any() for one in found)  # the class stays


def test_networks_without_a_w_are_refused() -> None:
    made = new_network("r3gan", resolution=8, z_dim=8, fmap_base=64, fmap_max=8)
    z = new_network("a", resolution=8, z_dim=8, fmap_base=64, fmap_max=8)

    for G in (made.generator, z.generator):
        for refused in (
            lambda G=G: find_ganspace(G, 2, 100, layers=[0]),
            lambda G=G: judge_faces(G, 10, judge, VALUES),
        ):
            with pytest.raises(UsageError, match="no intermediate latent space"):
                refused()


def test_ganspace_finds_the_axes_of_w(net: Any) -> None:
    found = find_ganspace(net.generator, 3, 5000, layers=range(4))

    w = torch.cat(list(draw_latents(net.generator, 5000, 0))).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(w.T))
    for one, value, vector in zip(found, values[::-1], vectors.T[::-1], strict=False):
        assert abs(float(one.vector @ vector)) > 0.9999
        assert one.scale == pytest.approx(np.sqrt(value), rel=0.05)
        assert one.found["share"] == pytest.approx(value / values.sum(), rel=1e-3)


def test_components_of_activations_move_them(net: Any) -> None:
    """Along the first direction the layer's activations change more than along a random one."""
    G: Generator = net.generator
    first = find_in_activations(G, 2, 2, 400, layers=range(4))[0]

    assert first.name == "pca-layer2.1"
    block = G.synthesis.style_maps()[2].block
    seen: list[Tensor] = []
    handle = block.register_forward_hook(lambda module, given, output: seen.append(output))
    w = next(draw_latents(G, 50, 9))
    for vector in (first.vector, np.eye(8, dtype=np.float32)[3]):
        for sign in (-1, 1):
            moved = w + sign * torch.from_numpy(vector)
            with torch.no_grad():
                G.synthesis(moved[:, None].expand(-1, 4, -1))
    handle.remove()
    along, beside = ((seen[at + 1] - seen[at]).square().mean() for at in (0, 2))
    assert along > beside
    with pytest.raises(UsageError, match="0 to 3"):
        find_in_activations(G, 4, 2, 100, layers=[0])


@pytest.mark.parametrize("fit", ["svm", "mean"])
def test_a_labelled_direction_moves_its_label(net: Any, space: Any, faces: Any, fit: Any) -> None:
    label = parse_label("bright=light:light/dark", VALUES)
    other = parse_label("leftish=half:left", VALUES)
    found, refused = find_labels(net.generator, faces, [label, other], layers=range(4), fit=fit)
    directions = Directions(space, {one.name: one for one in found})

    effects = measure_effects(net.generator, directions, ["bright"], judge, VALUES, faces=60)

    assert refused == {}
    assert directions["bright"].found["accuracy"] > 0.8
    moves = effects["bright"]["moves"]
    assert moves["bright"] > 0.2
    assert set(effects["bright"]["changes"]) == set(VALUES)


def test_what_is_kept_is_projected_out(net: Any, faces: Any) -> None:
    labels = [parse_label(text, VALUES) for text in ("bright=light:light", "leftish=half:left")]
    (bright, leftish), _ = find_labels(net.generator, faces, labels, layers=range(4))

    (again,), _ = find_labels(net.generator, faces, labels[:1], layers=range(4), keep=[leftish])

    assert abs(float(again.vector @ leftish.vector)) < 1e-6
    assert float(again.vector @ bright.vector) > 0
    assert again.found["keeps"] == ["leftish"]
    later = without_kept(net.generator, bright, [leftish])
    np.testing.assert_allclose(later.vector, again.vector, atol=1e-6)
    assert later.found == again.found and later.scale == pytest.approx(again.scale)
    with pytest.raises(UsageError, match="nothing is left"):
        find_labels(net.generator, faces, labels[1:], layers=[0], keep=[
            leftish.__class__("x", "labels", leftish.vector, 1.0, (0,))
        ])  # fmt: skip


def test_a_measured_leak_is_taken_off(net: Any, space: Any, faces: Any) -> None:
    """Tilted towards another label's direction on purpose, it leaks; corrected, far less.

    Tilted so far that more than strength 1 of the other would have to go, only 1 goes.
    """
    labels = [parse_label(text, VALUES) for text in ("bright=light:light", "leftish=half:left")]
    (bright, leftish), _ = find_labels(net.generator, faces, labels, layers=range(4))
    tilted = [bright.vector + share * leftish.vector for share in (0.25, 0.7)]
    a_little, much = (
        replace(bright, vector=(one / np.linalg.norm(one)).astype(np.float32)) for one in tilted
    )
    directions = Directions(space, {"bright": a_little, "leftish": leftish})

    better, bounded = (
        correct_leaks(net.generator, directions, [one], [leftish], judge, VALUES)[0]
        for one in (a_little, much)
    )

    moved = [
        measure_effects(net.generator, directions.adding([one]), ["bright"], judge, VALUES)
        for one in (a_little, better)
    ]
    before, after = (abs(row["bright"]["moves"]["leftish"]) for row in moved)
    assert after < before / 2
    assert 0 < better.found["less"]["leftish"] < 1 == bounded.found["less"]["leftish"]


def test_a_label_that_all_faces_share_is_left_out(net: Any, faces: Any) -> None:
    never = {**faces.seen, "rare": np.tile(np.float32([1.0, 0.0]), (600, 1))}
    odd = type(faces)(faces.w, never, {**VALUES, "rare": ("yes", "no")})

    found, refused = find_labels(net.generator, odd, [Label("rare", "rare", ("yes",), ())],
                                 layers=[0])  # fmt: skip

    assert found == []
    assert "600 faces" in refused["rare"]


def test_channels_are_ranked_by_what_they_move(net: Any, space: Any, faces: Any) -> None:
    label = parse_label("bright=light:light", VALUES)

    found = find_channels(
        net.generator, space, faces, [label], judge, count=3, tried=6, pictures=20
    )

    moved = [one.found["moved"] for one in found]
    assert len(found) == 3
    assert moved == sorted(moved, reverse=True)
    assert all(one.name == f"bright.{one.style_map}.{np.abs(one.vector).argmax()}" for one in found)
    directions = Directions(space, {one.name: one for one in found})
    best = found[0].name
    effects = measure_effects(net.generator, directions, [best], judge, VALUES, faces=40)
    assert effects[best]["changes"]["light"] > 0


@pytest.mark.parametrize(
    "text",
    ["smile", "smile=light", "smile=nose:x", "smile=light:grey", "x=light:light/light",
     "x=light:light,dark", "x y=light:light", "x=tone:a/b/c"],
)  # fmt: skip
def test_labels_that_name_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_label(text, VALUES)


def test_usual_labels_name_every_value_once() -> None:
    values = {"Blond Hair": ("negative", "positive"), "mouth": ("wide open", "shut", "smile"),
              "glasses": ("no", "yes"), "side": ("left", "right")}  # fmt: skip

    names = [label.name for label in usual_labels(values)]

    assert names == ["blond-hair", "mouth-wide-open", "mouth-shut", "mouth-smile", "glasses",
                     "side-right"]  # fmt: skip


def test_a_search_says_how_it_found_and_is_not_repeated(net: Any, space: Any) -> None:
    judging = Judging(judge, VALUES, "ef" * 32)
    search = Search(
        "labels", samples=300, labels=("bright=light:light", "leftish=half:left"),
        keep=("leftish",),
    )  # fmt: skip

    new = run_search(search, net.generator, Directions(space, {}), judging)

    known = Directions(space, {one.name: one for one in new})
    assert found_before(search, known, judging) == ["leftish", "bright"]
    assert known["bright"].found["keeps"] == ["leftish"]
    assert known["bright"].found["moves"].keys() == {"bright", "leftish"}
    assert found_before(Search("labels", samples=301), known, judging) == []
    check_new(new, known)  # the same once more, as with another --count
    with pytest.raises(UsageError, match="leftish"):
        check_new([replace(one, scale=2 * one.scale) for one in new], known)
    with pytest.raises(UsageError, match="--keep"):
        run_search(
            Search("labels", samples=300, labels=("bright=light:light",), keep=("lefty",)),
            net.generator, Directions(space, {}), judging,
        )  # fmt: skip
    with pytest.raises(UsageError, match="classifiers"):
        run_search(search, net.generator, known)


def test_only_directions_of_w_can_be_kept(net: Any, space: Any, faces: Any) -> None:
    judging = Judging(judge, VALUES, "ef" * 32)
    search = Search("channels", samples=600, labels=("bright=light:light",), count=1)
    (channel,) = run_search(search, net.generator, Directions(space, {}), judging, faces=faces)
    known = Directions(space, {channel.name: channel})
    search = Search("labels", samples=600, labels=("leftish=half:left",), keep=(channel.name,))

    with pytest.raises(UsageError, match=f"--keep {channel.name}"):
        run_search(search, net.generator, known, judging, faces=faces)


def test_what_is_kept_is_found_and_measured_once(
    net: Any, space: Any, faces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many directions leave it alone; each of them is fitted once, too."""
    fitted: list[str] = []
    measured: list[str] = []

    def fit(G: Any, faces: Any, labels: Any, **how: Any) -> Any:
        fitted.extend(label.name for label in labels)
        return find_labels(G, faces, labels, **how)

    def measure(G: Any, directions: Any, names: Any, *given: Any, **how: Any) -> Any:
        measured.extend(names)
        return measure_effects(G, directions, names, *given, **how)

    monkeypatch.setattr(searching, "find_labels", fit)
    monkeypatch.setattr(finding, "measure_effects", measure)
    labels = ("bright=light:light", "leftish=half:left", "dark=light:dark")
    search = Search("labels", samples=600, labels=labels, keep=("leftish",))

    new = run_search(
        search, net.generator, Directions(space, {}), Judging(judge, VALUES, "ef" * 32), faces=faces
    )

    assert [one.name for one in new] == ["leftish", "bright", "dark"]
    assert sorted(fitted) == ["bright", "dark", "leftish"]
    assert measured.count("leftish") == 1
