"""SeFa's closed form and GANSpace's components: the official programs' numbers, up to sign."""

from typing import Any

import numpy as np
import pytest

from stylecli.errors import UsageError
from stylecli.statistics.components import (
    LatentRegression,
    PrincipalComponents,
    pointed,
    weight_directions,
)
from tests.conftest import FIXTURES

LAYERS = {"all": slice(None), "0-1": [0, 1], "1,3": [1, 3]}


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    with np.load(FIXTURES / "official" / "directions.npz") as stored:
        return dict(stored)


def same_up_to_sign(found: Any, expected: Any) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, pointed(expected), atol=2e-5)


def weights_of(official: dict[str, Any], kind: str) -> list[Any]:
    return [official[f"{kind}:weight{at}"] for at in range(5) if f"{kind}:weight{at}" in official]


@pytest.mark.parametrize("kind", ["stylegan", "stylegan2"])
@pytest.mark.parametrize("layers", LAYERS)
def test_sefa_equals_the_official_program(official: Any, kind: str, layers: str) -> None:
    weights = weights_of(official, kind)
    chosen = LAYERS[layers]
    some = weights[chosen] if isinstance(chosen, slice) else [weights[at] for at in chosen]

    values, directions = weight_directions(some)

    np.testing.assert_allclose(values, official[f"{kind}:{layers}:eigenvalues_sorted"], rtol=1e-5)
    same_up_to_sign(directions, official[f"{kind}:{layers}:eigenvectors_sorted"])


@pytest.mark.parametrize("kind", ["stylegan", "stylegan2"])
def test_lengths_may_stay_as_they_are(official: Any, kind: str) -> None:
    values, directions = weight_directions(weights_of(official, kind), normalised=False)

    np.testing.assert_allclose(np.sqrt(values), official[f"{kind}:all:svd_values"], rtol=1e-5)
    same_up_to_sign(directions, official[f"{kind}:all:svd_right_vectors"])


def test_components_in_batches_equal_the_official_program(official: Any) -> None:
    found = PrincipalComponents(len(official["pca:components"]))
    w, batch = official["pca:w"], int(official["pca:batch"])
    for start in range(0, len(w), batch):
        found.add(w[start : start + batch])

    same_up_to_sign(found.components, official["pca:components"])
    np.testing.assert_allclose(found.deviations, official["pca:stdev"], rtol=1e-5)
    np.testing.assert_allclose(found.shares, official["pca:var_ratio"], rtol=1e-5)
    np.testing.assert_allclose(found.mean, official["pca:mean"], atol=1e-6)
    along = (w @ found.components.T).std(axis=0)
    np.testing.assert_allclose(along, official["pca:lat_stdev_of_w"], rtol=1e-4)


@pytest.mark.parametrize("width", [12, 400])
def test_one_batch_gives_the_exact_components(width: int) -> None:
    points = np.random.default_rng(0).standard_normal((200, width)) * np.linspace(3, 1, width)
    found = PrincipalComponents(3)
    found.add(points)

    centred = points - points.mean(axis=0)
    _, lengths, right = np.linalg.svd(centred, full_matrices=False)
    same_up_to_sign(found.components, right[:3])
    np.testing.assert_allclose(found.deviations, lengths[:3] / np.sqrt(199))


def test_components_are_carried_to_latents_as_officially(official: Any) -> None:
    found = PrincipalComponents(4)
    found.add(official["reg:activations"])
    same_up_to_sign(found.components, official["reg:act_components"])
    regression = LatentRegression(found)
    for start in range(0, 500, 100):
        some = slice(start, start + 100)
        regression.add(official["reg:activations"][some], official["reg:z"][some])

    # One component's sign decides its latent's: as the official ones, where signs are alike.
    signs = np.sign((found.components * official["reg:act_components"]).sum(axis=1))
    expected = official["reg:latent_components"] * signs[:, None]
    np.testing.assert_allclose(regression.directions(), expected, atol=2e-3)


def test_memory_does_not_grow_and_what_does_not_fit_is_refused() -> None:
    found = PrincipalComponents(2)
    rng = np.random.default_rng(0)
    for _ in range(20):
        found.add(rng.standard_normal((50, 6)))
    assert found.points == 1000
    assert sum(np.size(value) for value in vars(found).values()) < 50
    for bad in (rng.standard_normal((5, 7)), np.full((5, 6), np.nan)):
        with pytest.raises(UsageError):
            found.add(bad)
    with pytest.raises(UsageError, match="3 components"):
        PrincipalComponents(3).add(rng.standard_normal((2, 9)))
    with pytest.raises(UsageError, match="0 components"):
        PrincipalComponents(0)
