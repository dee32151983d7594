"""Networks as ONNX, TorchScript and torch.export: the graph, what a file says, any batch.

The slow tests write every family in every format, and run ONNX with onnxruntime.
"""

import functools
import http.server
import importlib.util
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from stylecli import export, files, graphs, rendering, sampling, weights
from stylecli.checkpoint import load_network, save_network
from stylecli.errors import NetworkError, StyleCLIError, UsageError
from stylecli.export import (
    Drawing,
    Interface,
    Scoring,
    description,
    export_features,
    export_network,
)
from stylecli.features import efficientnet, inception, vgg16
from stylecli.graphs import TOLERANCES, fold_constants, traced
from stylecli.interop.graph_files import FORMATS, RECORD, read_graph_file
from stylecli.networks.model import Bundle, new_network
from stylecli.shipped import shipped_network
from tests.browser import BROWSER, in_browser, install_from_npm
from tests.conftest import made_weights
from tests.metrics.all_metrics import narrow_inception

WIDTHS = {"resolution": 16, "fmap_base": 128, "fmap_max": 8, "z_dim": 8}
THREE = {"num_layers": 3, "w_dim": 8, "D_fmap_base": 64, "D_fmap_max": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "a": WIDTHS,
    "f": WIDTHS | {"w_dim": 8, "mapping_layers": 2, "mapping_fmaps": 8},
    "stylegan2": WIDTHS | {"w_dim": 8, "mapping_layers": 2, "label_dim": 3},
    "stylegan3-t": WIDTHS | THREE,
    "stylegan3-r": WIDTHS | THREE,
    "r3gan": WIDTHS | {"group_fmaps": 4, "embed_dim": 6, "label_dim": 3},
    "lucidrains": {"resolution": 16, "capacity": 1, "z_dim": 8, "w_dim": 8, "attention": (1,)},
}
MISSING = [
    name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None
]
needs_onnx = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (pip install 'stylecli[export]')"
)
EVERY_FORMAT = [pytest.param("onnx", marks=needs_onnx), "torchscript", "torch-export"]
torch_speaks = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def network(name: str, side: int = 16) -> Bundle:
    """Return small networks in which no weight is zero."""
    bundle = new_network(name, seed=0, **FAMILIES[name] | {"resolution": side})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        assert bundle.D is not None
        for parameter in (*bundle.generator.parameters(), *bundle.D.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return bundle


def least_side(name: str) -> int:
    """Return the side of the smallest networks of a family: a graph grows with every layer."""
    return 16 if name.startswith("stylegan3") else 8


def written(
    name: str, format: str, folder: Path, side: int = 16, **more: Any
) -> tuple[Path, dict[str, Any]]:
    save_network(folder / "net.safetensors", network(name, side))
    target = folder / f"net{FORMATS[format]}"
    return target, export_network(folder / "net.safetensors", target, format=format, **more)


def test_inputs_are_what_a_network_has() -> None:
    config = network("stylegan2").config
    assert Interface().inputs(config) == {"z": ("batch", 8), "label": ("batch", 3), "psi": (1,)}
    given = Interface("ws", "given").inputs(config)
    assert given["ws"] == ("batch", config.num_ws, 8)
    assert given["noise_4"] == ("batch", 1, 16, 16) and len(given) == 1 + config.num_layers
    assert list(Interface().inputs(network("a").config)) == ["z"]  # no w: nothing to truncate


@pytest.mark.parametrize("name", FAMILIES)
def test_a_drawing_is_the_network(name: str) -> None:
    """psi as a tensor, with a cutoff, is psi as a number."""
    G = network(name).generator
    cutoff = 2 if G.config.has_w else None
    drawing = Drawing(G, Interface(cutoff=cutoff))
    inputs = drawing.example(3)
    given = dict(zip(drawing.names, inputs, strict=True))
    psi = float(given["psi"]) if "psi" in given else 1.0
    with torch.no_grad():
        wanted = G(given["z"], given.get("label"), truncation_psi=psi, truncation_cutoff=cutoff)
        found = drawing(*inputs)
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_score_is_that_of_a_picture_alone(name: str) -> None:
    """Also five at a time, which do not divide into groups of four for minibatch statistics."""
    D = network(name).D
    assert D is not None
    scoring = Scoring(D)
    inputs = scoring.example(5)
    with torch.no_grad():
        found, (wanted, _) = scoring(*inputs), scoring.wanted(inputs)
        alone = torch.cat([D(*(one[i : i + 1] for one in inputs)) for i in range(5)])
        together = D(*(one[:4] for one in inputs))
    assert torch.equal(wanted, alone) and found.std() > 1e-4
    assert torch.allclose(found, alone, rtol=1e-5, atol=1e-6)
    if D.config.mbstd_group_size > 1:
        assert not torch.allclose(found[:4], together, rtol=1e-4, atol=1e-5)


def test_psi_acts_on_the_layers_that_pictures_have_it_on() -> None:
    widths = {"fmap_base": 32, "fmap_max": 4, "z_dim": 4, "w_dim": 4, "mapping_layers": 1,
              "mapping_fmaps": 4}  # fmt: skip
    bundle = new_network("f", resolution=128, **widths)
    _, told = export._graph(bundle, "G_ema", None, "net.safetensors")
    assert told["psi_layers"] == bundle.config.truncation_cutoff == 8


def test_a_file_says_what_it_is() -> None:
    bundle = network("stylegan2")
    bundle.info["source_licence"] = "mine"
    told = description(bundle, Interface(cutoff=4))
    assert told["family"] == "stylegan2" and told["licence"] == "mine"
    assert told["bands"]["coarse"] == "0-2" and told["psi_layers"] == 4
    assert set(told["how_to_call"]) == {"z", "label", "psi", "images"}
    assert "bands" not in description(network("r3gan"), Interface())


def test_what_follows_from_weights_becomes_a_number() -> None:
    root = nn.Module()
    root.register_parameter("weight", nn.Parameter(torch.arange(6.0).view(2, 3), False))
    aten, graph = torch.ops.aten, fx.Graph()
    x, weight = graph.placeholder("x"), graph.get_attr("weight")
    energy = graph.call_function(aten.sum.dim_IntList, (weight, [1]))
    drawn = graph.call_function(aten.rand.default, ([2],))
    scaled = graph.call_function(aten.mul.Tensor, (x, energy))
    graph.output(graph.call_function(aten.add.Tensor, (scaled, drawn)))

    folded = fold_constants(fx.GraphModule(root, graph))

    kept = [node.target for node in folded.graph.nodes if node.op == "call_function"]
    assert kept == [aten.rand.default, aten.mul.Tensor, aten.add.Tensor]  # what is random stays
    (constant,) = folded.buffers()
    assert constant.tolist() == [3.0, 12.0] and not list(folded.parameters())
    assert folded(torch.ones(4, 2)).min() >= 3


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"format": "keras"}, "'keras'"),
        ({"format": "torchscript", "precision": "fp16"}, "fp16"),
        ({"format": "torch-export", "precision": "bf16"}, "bf16"),
        ({"format": "onnx", "opset": 7}, "opset 7"),
        ({"format": "torch-export", "interface": Interface(cutoff=-1)}, "cutoff -1"),
        ({"format": "torch-export", "interface": Interface(latents="y")}, "'y'"),
        ({"format": "torch-export", "interface": Interface(noise="random")}, "'random'"),
        ({"format": "torch-export", "interface": Interface(noise="given")}, "--noise-mode given"),
        ({"format": "onnx", "interface": Interface("ws", cutoff=3)}, "--psi-cutoff 3"),
        ({"format": "torch-export", "which": "D", "interface": Interface("ws")}, "--latents"),
    ],
    ids=str,
)
def test_what_there_is_not_is_refused(words: dict[str, Any], named: str, tmp_path: Path) -> None:
    save_network(tmp_path / "net.safetensors", network("r3gan"))
    with pytest.raises(UsageError, match=named):
        export_network(tmp_path / "net.safetensors", tmp_path / "x", **words)
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_a_cutoff_without_psi_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cutoff 3 acts on nothing.*--psi-cutoff 3"):
        Interface("ws", cutoff=3).check(network("stylegan2").config)
    with pytest.raises(UsageError, match="--psi-cutoff 1"):
        Interface(cutoff=1).check(network("a").config)  # no w: nothing to truncate
    Interface(cutoff=3).check(network("stylegan2").config)


def test_a_generator_that_the_file_lacks_is_named(tmp_path: Path) -> None:
    bundle = network("r3gan")
    bundle.G = bundle.D = None
    save_network(tmp_path / "net.safetensors", bundle)
    for which, named in (("G", "no generator G:"), ("D", "no discriminator D:")):
        with pytest.raises(NetworkError, match=named):
            export_network(
                tmp_path / "net.safetensors", tmp_path / "x.pt2", format="torch-export", which=which
            )


@pytest.mark.parametrize("cutoff", [0, 99])
def test_a_cutoff_of_zero_or_many_is_all_layers(cutoff: int) -> None:
    bundle = network("stylegan2")
    drawing, told = export._graph(bundle, "G_ema", Interface(cutoff=cutoff), "net.safetensors")
    z, label, psi = drawing.example(2)
    assert told["psi_layers"] == bundle.config.num_ws
    with torch.no_grad():
        wanted = bundle.generator(z, label, truncation_psi=float(psi))
        assert torch.allclose(drawing(z, label, psi), wanted, atol=1e-5)


def test_a_full_disk_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_network(tmp_path / "net.safetensors", network("r3gan"))
    monkeypatch.setattr(files, "_free_bytes", lambda path: 10)
    monkeypatch.setattr(graphs, "traced", lambda graph: pytest.fail("it is traced all the same"))
    with pytest.raises(StyleCLIError, match=r"disk is full: .*x\.pt2") as caught:
        export_network(tmp_path / "net.safetensors", tmp_path / "x.pt2", format="torch-export")
    assert caught.value.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_a_network_that_draws_no_numbers_is_refused() -> None:
    bundle = network("r3gan")
    with torch.no_grad():
        next(bundle.generator.synthesis.parameters()).fill_(torch.nan)
    drawing = Drawing(bundle.generator, Interface())
    with pytest.raises(NetworkError, match="not a number"):
        graphs._apart(lambda inputs: drawing(*inputs), drawing, 1)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"onnx is not installed, run: pip install"):
        export_network(tmp_path / "net.safetensors", tmp_path / "x.onnx", format="onnx")


# ---- every family, every format


def ran(path: Path, format: str, inputs: tuple[Tensor, ...], names: tuple[str, ...]) -> Tensor:
    """Run a file as a program without stylecli does."""
    if format == "torchscript":
        return torch.jit.load(path)(*inputs)  # type: ignore[no-any-return, no-untyped-call]
    if format == "torch-export":
        return torch.export.load(path).module()(*inputs)  # type: ignore[no-any-return]
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    (images,) = session.run(
        None, {name: one.numpy() for name, one in zip(names, inputs, strict=True)}
    )
    return torch.from_numpy(images)


@torch_speaks
@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_files_draw_what_networks_draw_with_any_batch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every format, of one graph: tracing takes as long as all that follows."""
    side, programs = least_side(name), []
    drawing = Drawing(network(name, side).generator, Interface())

    def traced_once(graph: graphs.Graph) -> torch.export.ExportedProgram:
        programs[:] = programs or [traced(graph)]
        return programs[0]

    monkeypatch.setattr(graphs, "traced", traced_once)
    for format in FORMATS:
        if format == "onnx" and MISSING:
            continue
        path, told = written(name, format, tmp_path, side)
        assert told["apart"] <= TOLERANCES["float32"]
        for count in (1, 5, 2):
            inputs = drawing.example(count, seed=10 + count)
            with torch.no_grad():
                wanted, found = drawing(*inputs), ran(path, format, inputs, drawing.names)
            assert found.shape == (count, 3, side, side), format
            assert (found - wanted).abs().max() <= 1e-4 * (wanted.max() - wanted.min()), format
        if format == "onnx":  # --precision fp16 of the same graph
            halved = halve_file(path)
            found = ran(halved, format, inputs, drawing.names)
            apart = (found - wanted).abs().max() / (wanted.max() - wanted.min())
            assert 1e-6 < apart <= TOLERANCES["fp16"] and found.dtype == torch.float32


def halve_file(path: Path) -> Path:
    """Write an ONNX file with 16-bit weights beside it; no tensor of more than one stays 32-bit."""
    import onnx

    model, half = onnx.load(path), path.with_stem("half")
    graphs.halve(model)
    kinds = {one.data_type for one in model.graph.initializer if max(one.dims, default=1) > 1}
    assert onnx.TensorProto.FLOAT16 in kinds and onnx.TensorProto.FLOAT not in kinds
    onnx.save(model, half)
    return half


@torch_speaks
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format"),
    [pytest.param(name, "onnx", marks=needs_onnx) for name in FAMILIES]
    + [("f", "torchscript"), ("stylegan2", "torch-export")],
)
def test_files_score_what_networks_score_with_any_batch(
    name: str, format: str, tmp_path: Path
) -> None:
    path, told = written(name, format, tmp_path, least_side(name), which="D")
    assert told["network"] == "D" and told["apart"] <= 1e-4
    assert_read(path, told)
    D = network(name, least_side(name)).D
    assert D is not None
    scoring = Scoring(D)
    for count in (1, 5):
        inputs = scoring.example(count, seed=10 + count)
        with torch.no_grad():
            wanted, spread = scoring.wanted(inputs)
            found = ran(path, format, inputs, scoring.names)
        assert found.shape == (count, 1) and (found - wanted).abs().max() <= 1e-4 * spread


@torch_speaks
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format"),
    [
        pytest.param(name, "onnx", marks=needs_onnx)
        for name in ("efficientnet-lite0", "vgg16-lpips", "vgg16")
    ]
    + [("vgg16-lpips", "torch-export"), ("vgg16", "torchscript")],
)
def test_files_see_what_metrics_see_in_pictures_of_any_size(
    name: str, format: str, tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VGG16 a sixteenth as wide, made-up weights."""
    monkeypatch.setattr(vgg16, "_BLOCKS", tuple((w // 16, n) for w, n in vgg16._BLOCKS))
    monkeypatch.setattr(vgg16, "FEATURES", 64)
    shapes = {"vgg16": vgg16.tensor_shapes, "vgg16-lpips": vgg16.lpips_shapes}
    arrays = made_weights(shapes.get(name, efficientnet.tensor_shapes)())
    (tmp_path / "made.pth").write_bytes(b"made up")
    weights.store(name, arrays, file=tmp_path / "made.pth")
    path = tmp_path / f"net{FORMATS[format]}"
    told = export_features(name, path, format=format)
    assert told["apart"] <= 1e-4 and told["source"] == "made.pth" and not told["published"]
    assert told["licence"] == weights.NETWORKS[name].licence
    assert_read(path, told)
    seeing, _ = export._looking(name, arrays)
    random = torch.Generator().manual_seed(0)
    for count, side in ((1, 40), (3, 500)):  # eager, a picture over twice the side skips rows
        given = tuple(seeing.drawn((count, 3, side, side + 7), random) for _ in seeing.names)
        wanted, largest = seeing.wanted(given)
        found = ran(path, format, given, seeing.names)
        assert found.shape == wanted.shape and wanted.abs().max() > 0
        assert (found - wanted).abs().max() <= 1e-4 * largest


@torch_speaks
@needs_onnx
@pytest.mark.slow
def test_inception_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_inception(monkeypatch)
    seeing, resize = export._looking(
        "inception-2015-12-05", made_weights(inception.tensor_shapes())
    )
    path, form = tmp_path / "net.onnx", graphs.Form("onnx")
    told = graphs.write_graph(seeing, {"network": "x"}, path, form, (1, 2), "x")
    assert told["apart"] <= 1e-4 and "299" in resize
    given = (seeing.drawn((1, 3, 640, 40), torch.Generator().manual_seed(0)),)
    wanted, largest = seeing.wanted(given)
    assert wanted.shape == (1, inception.FEATURES) and wanted.std() > 0
    assert (ran(path, "onnx", given, seeing.names) - wanted).abs().max() <= 1e-4 * largest


@torch_speaks
@pytest.mark.slow
@pytest.mark.parametrize("format", EVERY_FORMAT)
def test_styles_and_noise_can_be_given(format: str, tmp_path: Path) -> None:
    how = Interface("ws", "given")
    path, told = written("f", format, tmp_path, interface=how)
    assert list(told["inputs"])[:2] == ["ws", "noise_0"] and "psi_layers" not in told
    drawing = Drawing(network("f").generator, how)
    inputs = drawing.example(5)
    with torch.no_grad():
        wanted, found = drawing(*inputs), ran(path, format, inputs, drawing.names)
        other = drawing(inputs[0], *(one * 0 for one in inputs[1:]))
    assert (found - wanted).abs().max() <= 1e-4 * (wanted.max() - wanted.min())
    assert not torch.allclose(found, other, atol=1e-2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own
def test_the_batch_is_free_in_the_graph_and_nothing_is_worked_out_twice() -> None:
    program = traced(Drawing(network("stylegan2").generator, Interface()))
    (images,) = [node for node in program.graph.nodes if node.op == "output"]
    shape = images.args[0][0].meta["val"].shape
    assert isinstance(shape[0], torch.SymInt) and shape[1:] == (3, 16, 16)
    signature = program.graph_signature
    constants = {
        *signature.inputs_to_buffers,
        *signature.inputs_to_parameters,
        *signature.inputs_to_lifted_tensor_constants,
    }
    for node in program.graph.nodes:
        if node.op == "call_function":
            inputs = {one.name for one in node.all_input_nodes}
            assert inputs and not inputs <= constants, node


def assert_read(path: Path, told: dict[str, Any]) -> None:
    """Check that a file says what ``export`` said of it, read without running it."""
    found = read_graph_file(path)
    assert found is not None
    assert found.record == {k: v for k, v in told.items() if k not in ("apart", "checked", "bytes")}


@torch_speaks
@needs_onnx
@pytest.mark.slow
def test_an_onnx_file_describes_itself(tmp_path: Path) -> None:
    import onnx

    path, told = written("stylegan2", "onnx", tmp_path, opset=20)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    assert kept["family"] == "stylegan2" and json.loads(kept["bands"])["coarse"] == "0-2"
    assert json.loads(kept["inputs"])["z"] == ["batch", 8] and len(kept["source_sha256"]) == 64
    assert [one.version for one in model.opset_import if one.domain == ""] == [20]
    assert [one.name for one in model.graph.input] == ["z", "label", "psi"] == list(told["inputs"])
    assert_read(path, told)
    model.metadata_props.add(key="author", value="me, not JSON")
    onnx.save(model, path)
    assert_read(path, told)
    for value in (model.graph.input[0], model.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


@torch_speaks
@needs_onnx
@pytest.mark.slow
def test_a_plane_without_contrast_stays_a_number(tmp_path: Path) -> None:
    """A fresh config f has no noise: it divides by the root of 0 + 1e-8, which must stay there."""
    save_network(tmp_path / "net.safetensors", new_network("f", seed=0, **FAMILIES["f"]))
    told = export_network(tmp_path / "net.safetensors", tmp_path / "x.onnx", format="onnx")
    assert told["apart"] <= 1e-4
    assert str(Path(__file__).parents[1]).encode() not in (tmp_path / "x.onnx").read_bytes()


@torch_speaks
@needs_onnx
@pytest.mark.slow
def test_half_precision_is_half_the_bytes(tmp_path: Path) -> None:
    """Of weights: a network with enough of them."""
    bundle = new_network("stylegan2", resolution=8, fmap_base=1024, fmap_max=64, z_dim=64, w_dim=64)
    save_network(tmp_path / "net.safetensors", bundle)
    sizes = {}
    for precision in ("float32", "fp16"):
        target = tmp_path / f"{precision}.onnx"
        told = export_network(
            tmp_path / "net.safetensors", target, format="onnx", precision=precision
        )
        sizes[precision] = target.stat().st_size
        assert told["precision"] == precision and told["apart"] <= TOLERANCES[precision]
    assert sizes["fp16"] < 0.7 * sizes["float32"]


@torch_speaks
@pytest.mark.slow
@pytest.mark.parametrize("format", ["torchscript", "torch-export"])
def test_torch_files_describe_themselves(format: str, tmp_path: Path) -> None:
    path, facts = written("stylegan3-r", format, tmp_path)
    assert_read(path, facts)
    kept: dict[str, Any] = {RECORD: ""}
    if format == "torchscript":
        torch.jit.load(path, _extra_files=kept)  # type: ignore[no-untyped-call]
    else:
        torch.export.load(path, extra_files=kept)
    told = json.loads(kept[RECORD])
    assert told["family"] == "stylegan3" and told["inputs"]["psi"] == [1]
    assert told["network"] == "G_ema" and told["format"] == format


@pytest.mark.slow
def test_a_file_that_draws_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, run = graphs._WRITERS["torch-export"]
    other = lambda content, drawing: lambda inputs: run(content, drawing)(inputs) + 0.01  # noqa: E731
    monkeypatch.setitem(graphs._WRITERS, "torch-export", (write, other))
    with pytest.raises(NetworkError, match="apart from the network"):
        written("r3gan", "torch-export", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


# ---- in a browser

ORT = "onnxruntime-web@1.30.0"  # for this test only: it is fetched, and never shipped
ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"
}  # fmt: skip
needs_browser = [*in_browser, torch_speaks, needs_onnx]


class _Folder(http.server.SimpleHTTPRequestHandler):
    """What ``python -m http.server`` sends; below /isolated/ with the headers for threads."""

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix("/isolated"))

    def end_headers(self) -> None:
        if self.path.startswith("/isolated/"):
            for name, value in ISOLATED.items():
                self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Serve a folder with the page of docs/export.md on loopback; return the address."""
    page = (Path(__file__).parents[1] / "docs" / "export.md").read_text("utf-8")
    found = re.search(r"<!-- page -->\n```html\n(.*?)```", page, re.DOTALL)
    assert found is not None and len(found[1].splitlines()) < 40
    (tmp_path / "index.html").write_text(found[1], "utf-8")
    handler = functools.partial(_Folder, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class TestInBrowser:
    """The page that the documentation shows, with the network that is shipped."""

    pytestmark = needs_browser

    def test_it_draws_what_stylecli_draws(self, served: str, tmp_path: Path) -> None:
        """To one grey level: another order of sums moves a value that is about to be rounded."""
        playwright = pytest.importorskip(
            "playwright.sync_api", reason="needs playwright: pip install '.[dev]'"
        )
        if install_from_npm(ORT, tmp_path) is None:
            pytest.skip(f"needs npm, and the registry, to fetch {ORT}")
        source = shipped_network()
        assert source is not None
        export_network(source, tmp_path / "cats-G_ema.onnx", format="onnx")
        net = load_network(source)
        how = rendering.Drawing(psi=0.4, psi_cutoff=net.config.truncation_cutoff)
        ((_, wanted),) = sampling.draw_seeds(net, [7], how)
        z = sampling.seed_latents([7], net.config.z_dim)[0].tolist()
        complaints: list[str] = []
        kinds, hosts = {}, set()
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
            for folder, threads in (("/", False), ("/isolated/", True)):
                page = browser.new_page()
                page.on("pageerror", lambda error: complaints.append(str(error)))
                page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
                page.on("response", lambda answer: kinds.update(
                    {answer.url.rpartition("/")[2]: answer.headers.get("content-type")}
                ))  # fmt: skip
                page.goto(served + folder)
                page.wait_for_function("canvas.width === 64", timeout=120_000)
                assert page.evaluate("crossOriginIsolated") is threads
                pixels = page.evaluate(
                    """async ([z, psi]) => {
                      await draw(z, psi);
                      return [...canvas.getContext("2d").getImageData(0, 0, 64, 64).data];
                    }""",
                    [z, 0.4],
                )
                found = torch.tensor(pixels).view(64, 64, 4)
                assert (found[:, :, 3] == 255).all()
                assert (found[:, :, :3] - torch.from_numpy(wanted).long()).abs().max() <= 1
                page.screenshot(path=tmp_path / "page.png")
            browser.close()
        assert complaints == [] and hosts == {served.split("/")[2]}
        assert kinds["ort-wasm-simd-threaded.wasm"] == "application/wasm"
