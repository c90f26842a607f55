"""The scripts run, and what they compare is the same thing."""

import functools
import math
import re
import sys
from argparse import Namespace

import losses
import pytest
import timing
import torch
from torch import nn

import symloss

CPU = torch.device("cpu")
ROWS = [
    "straightforward",
    "functional, composed",
    "symloss",
    "V2, straightforward",
    "V2, functional, composed",
    "V2, symloss",
    "balance, straightforward",
    "balance, symloss",
]
SETTINGS = Namespace(
    backbone="tiny",
    batch_size=3,
    num_classes=4,
    size=8,
    device=CPU,
    precision="fp32",
    channels_last=False,
)


@pytest.fixture
def step():
    pytest.importorskip("torchvision", reason="benchmarks/step.py needs torchvision")
    import step

    return step


@pytest.fixture
def scaling():
    pytest.importorskip("matplotlib", reason="benchmarks/scaling.py needs Matplotlib")
    import scaling

    return scaling


def run(script, capsys, tmp_path, *arguments):
    """The rows of the table that ``--quick`` prints and writes, cells without their units."""
    out = tmp_path / "table.md"
    script.main(["--quick", "--out", str(out), *arguments])
    text = capsys.readouterr().out
    assert out.read_text(encoding="utf-8") == text
    assert f"torch {torch.__version__}" in text.splitlines()[-1]
    table = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line] for line in table]
    assert all(len(row) == len(header) for row in rows)
    return rows


def numbers(row):
    return [float(x.replace(",", "")) for cell in row for x in re.findall(r"[-\d.,]+", cell)]


def assert_positive(values):
    assert values
    assert all(math.isfinite(x) and x > 0 for x in values)


@pytest.mark.slow
def test_step_prints_a_row_for_each_variant(step, capsys, tmp_path):
    rows = run(step, capsys, tmp_path)
    assert [row[0] for row in rows][:4] == [
        "supervised",
        "two backwards",
        "authors' settings",
        "symloss",
    ]
    assert {row[0]: row[-1] for row in rows}.items() >= {
        ("supervised", "1"),
        ("two backwards", "2"),
        ("authors' settings", "2"),
        ("symloss", "1"),
    }
    for row in rows:
        peak = row.pop(-2)
        assert_positive(numbers(row[1:]))
        if sys.platform == "linux":
            assert float(peak) > 0


@pytest.mark.parametrize(("name", "bf16"), [("authors' settings", False), ("symloss", True)])
def test_only_the_authors_settings_ignore_precision_and_channels_last(
    step, name, bf16, monkeypatch
):
    monkeypatch.setattr(step, "build_extractor", tiny_extractor)
    options = Namespace(**vars(SETTINGS) | {"precision": "bf16", "channels_last": True})
    net = step.build_trainer(options, name)
    with net.autocast():
        assert torch.is_autocast_enabled("cpu") == bf16
    assert net.images[0].is_contiguous() != bf16
    assert net.extractor[0].weight.is_contiguous() != bf16


def tiny_extractor(_):
    norm = nn.BatchNorm2d(6)
    return nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Conv2d(6, 5, 6), nn.Flatten()), 5


def gradients(step, name):
    net = step.Trainer(SETTINGS)
    initial = [p.detach().clone() for p in net.extractor.parameters()]
    step.VARIANTS[name](net)
    assert any((p != q).any() for p, q in zip(net.extractor.parameters(), initial, strict=True))
    parts = [*net.extractor.named_parameters(), *net.head.named_parameters("head")]
    return {key: parameter.grad for key, parameter in parts}


@pytest.mark.parametrize(
    "name", ["symloss", pytest.param("symloss, compiled", marks=pytest.mark.slow)]
)
def test_the_variants_of_a_step_give_the_same_gradients(step, name, monkeypatch):
    # Tracing and autograd as in the benchmark, without the minute of a C++ compiler.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(step, "build_extractor", tiny_extractor)
    expected, got = gradients(step, "two backwards"), gradients(step, name)
    scale = max(gradient.abs().max() for gradient in expected.values())
    assert got.keys() == expected.keys()
    for key, gradient in got.items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-4, atol=1e-6 * scale.item())


def test_losses_prints_a_row_for_each_shape_and_computation(capsys, tmp_path):
    rows = run(losses, capsys, tmp_path)
    names = [(str(shape), name) for shape in losses.QUICK_SHAPES for name in ROWS]
    assert [tuple(row[:2]) for row in rows] == names
    for row in rows:
        *others, inputs = row[2:]  # a computation may keep none of its inputs
        assert float(inputs) >= 0
        assert_positive(numbers(others))


def test_copy_bandwidth_is_that_of_a_memory():
    assert 1e7 < losses.copy_bandwidth(2**20, 3, CPU) < 1e13


@pytest.mark.parametrize("shape", [(9, 10), (2, 6, 3, 5)])
@pytest.mark.parametrize("method", losses.METHODS, ids=["V1", "V2", "balance"])
def test_the_straightforward_formulas_are_those_of_symloss(method, shape):
    logits, labels = losses.make_inputs(shape, CPU)
    with torch.no_grad():
        for tensor in logits:
            tensor.mul_(3)
    routed = symloss.RoutedLogits(*logits[:2]), labels, symloss.RoutedLogits(*logits[2:])
    ways = [*method.values()]
    terms = [way(*routed) for way in ways]
    options = {"allow_unused": True, "materialize_grads": True}
    gradients = [
        torch.autograd.grad(losses.total(way, logits, labels), logits, **options) for way in ways
    ]
    for way in range(len(ways) - 1):
        torch.testing.assert_close(terms[way], terms[-1])
        torch.testing.assert_close(gradients[way], gradients[-1])


def test_kept_bytes_tell_results_from_inputs():
    logits, labels = losses.make_inputs((8, 6), CPU)
    size = logits[0].nbytes
    assert losses.kept_bytes(lambda v, _: v[0].exp().sum(), logits, labels) == (size, 0)
    assert losses.kept_bytes(lambda v, _: (v[0] * v[1]).sum(), logits, labels) == (0, 2 * size)
    assert losses.kept_bytes(lambda v, _: v[0].exp().square().sum(), logits, labels)[0] == size
    assert losses.kept_bytes(lambda v, _: v[0].sum(), logits, labels) == (0, 0)


def test_scaling_prints_exponents_and_draws_a_plot(scaling, capsys, tmp_path):
    plot = tmp_path / "plot.png"
    rows = run(scaling, capsys, tmp_path, "--plot", str(plot))
    assert len(rows) == 6
    for row in rows:
        assert_positive(numbers(row[1:]))
    assert plot.read_bytes().startswith(b"\x89PNG")
    slope = r"-?\d\.\d{3}"
    text = (tmp_path / "table.md").read_text()
    for label in ("N, at K = 31", "K, at N = 256"):
        assert re.search(f"in {label}: {slope} over all sizes, {slope} from [\\d,]+ upwards", text)


def test_the_fit_finds_the_exponent_of_the_last_decade(scaling):
    sizes = [1, 10, 100, 200, 500, 1000]
    seconds = [9.0, 9.0, *(2e-6 * size**1.5 for size in sizes[2:])]
    assert scaling.fit(*scaling.last_decade(sizes, seconds)) == pytest.approx((1.5, 2e-6))


def test_calls_take_turns():
    order = []
    calls = {name: functools.partial(order.append, name) for name in "ab"}
    times = timing.interleave(calls, repeat=3, device=CPU)
    assert "".join(order).endswith("ababab")
    assert [len(samples) for samples in times.values()] == [3, 3]


def test_the_clock_is_read_when_the_device_is_done(monkeypatch):
    for kind in ("cuda", "mps"):
        waited = []
        monkeypatch.setattr(getattr(torch, kind), "synchronize", lambda *_, w=waited: w.append(1))
        timing.interleave({"a": waited.clear}, repeat=1, device=torch.device(kind))
        assert waited == [1]


def test_times_are_shown_as_median_and_quartiles():
    assert timing.spread([5, 1, 2, 3, 4]) == "3.00 (2.00 to 4.00)"
    assert timing.median([5, 1, 2, 4]) == 3
    assert [timing.three_digits(x) for x in (0.01234, 0.9999, 12345.6)] == [
        "0.0123",
        "1.00",
        "12,300",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "resnet51"], "--backbone must be a classification network, got 'resnet51'"),
        (
            ["--backbone", "shufflenet_v2_x0_5", "--size", "32", "--batch-size", "1"],
            "--size 32: Expected more than 1 value per channel",
        ),
        (["--backbone", "squeezenet1_0"], "must end in a linear layer, got"),
        (["--batch-size", "0"], "--batch-size: must be a whole number of at least 1, got '0'"),
        (
            ["--device", "gpu"],
            "--device: must be a device that torch can use on this machine, for example cpu, "
            "got 'gpu'",
        ),
        (["--out", "nowhere/table.md"], "--out: must be a file in a folder that exists"),
    ],
)
def test_bad_arguments_exit_with_one_line(step, arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        step.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
