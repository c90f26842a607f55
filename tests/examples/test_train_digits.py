import functools
import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import digits as pictures
import numpy as np
import pytest
import torch
import train_digits
from digits import Digits, Run, load_handwritten, render_digits
from office import console
from PIL import Image
from train_digits import METHODS, Method, Recipe

import symloss

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "train_digits.py"
printed_digits = functools.cache(render_digits)
NOT_SHOWN = {"target_worst_recall/C_s", "source_worst_recall/C_t", "source_worst_recall/C_s"}


@dataclass
class Demo:
    """What a call of the script printed, trained and wrote."""

    printed: str
    trained: list[Run]
    folder: Path

    @property
    def results(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The runs in results.json by method and seed."""
        saved = json.loads((self.folder / "results.json").read_text(encoding="utf-8"))["results"]
        return {
            (method, seed): run
            for method, by_seed in saved.items()
            for seed, run in by_seed.items()
        }

    def run(self, method: str, seed: int) -> Run:
        """A trained network."""
        (run,) = (run for run in self.trained if (run.method, run.seed) == (method, seed))
        return run


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A function that runs the script, with fewer printed digits and smaller pictures."""

    def call(*options: str) -> Demo:
        demo = Demo("", [], tmp_path_factory.mktemp("digits"))
        train, printed = train_digits.train, io.StringIO()

        def recorded(*args: Any) -> Run:
            demo.trained.append(train(*args))
            return demo.trained[-1]

        with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
            patch.setattr(train_digits, "SOURCE_SIZE", 320)
            patch.setattr(train_digits, "render_digits", printed_digits)
            patch.setattr(train_digits, "train", recorded)
            patch.setattr(pictures, "TSNE_POINTS", 60)
            train_digits.main(["--epochs", "2", *options, "--out", str(demo.folder)])
        demo.printed = printed.getvalue()
        return demo

    return call


@pytest.fixture(scope="module")
def two_seeds(demo):
    """All methods with the seeds 3 and 4, and the pictures."""
    return demo("--seeds", "3", "4")


@pytest.fixture(scope="module")
def without_balance(demo):
    """All methods with the seed 4 alone, and no weight on the balance."""
    return demo("--seeds", "4", "--balance", "0", "--no-plots")


def same_weights(first: Run, second: Run) -> bool:
    """Whether two runs ended with the same parameters and buffers."""
    pairs = [(first.extractor, second.extractor), (first.head, second.head)]
    states = [(a.state_dict(), b.state_dict()) for a, b in pairs]
    return all(torch.equal(a[name], b[name]) for a, b in states for name in a.keys() | b.keys())


def test_all_pictures_are_drawn(two_seeds):
    names = {path.name for path in two_seeds.folder.iterdir()}
    assert names == {"results.json", "samples.png", "tsne.png"}
    for path in two_seeds.folder.glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 300
            assert np.asarray(image.convert("L")).std() > 5


def test_no_pictures_are_drawn_with_no_plots(without_balance):
    assert [path.name for path in without_balance.folder.iterdir()] == ["results.json"]


def test_results_name_every_accuracy(two_seeds):
    saved = two_seeds.results
    methods = "source-only", "symnets", "symnets-balanced"
    assert set(saved) == {(method, seed) for method in methods for seed in ("3", "4")}

    def names(domain, *classifiers):
        return {
            f"{domain}_{what}/{c}" for what in ("accuracy", "worst_recall") for c in classifiers
        }

    for (method, _), run in saved.items():
        if method == "source-only":
            target, source = names("target", "C_t"), names("source", "C_t")
        else:
            target, source = names("target", "C_t", "C_s"), names("source", "C_s")
        assert len(run["epochs"]) == 2
        assert all(set(epoch) == {"loss"} | target for epoch in run["epochs"])
        assert all(0 <= epoch[name] <= 100 for epoch in run["epochs"] for name in target)
        assert set(run["final"]) == target | source
        assert all(0 <= value <= 100 for value in run["final"].values())
        assert all(run["final"][name] == run["epochs"][-1][name] for name in target)


def test_the_table_shows_the_numbers_of_the_file(two_seeds):
    table = two_seeds.printed
    final = {key: run["final"] for key, run in two_seeds.results.items()}
    for accuracies in final.values():
        shown = (x for name, x in accuracies.items() if name not in NOT_SHOWN)
        assert all(f" {accuracy:.1f} " in table for accuracy in shown)


def test_accuracies_are_of_the_final_network_in_evaluation_mode(two_seeds):
    handwritten = load_handwritten()
    target = Digits(handwritten.images[1::2], handwritten.labels[1::2])
    printed = {seed: printed_digits(320, seed) for seed in (3, 4)}
    for run in two_seeds.trained:
        domains = {"source": printed[run.seed], "target": target}
        run.extractor.eval()
        for name, accuracy in run.final.items():
            images, labels = domains[name.split("_")[0]]
            with torch.no_grad():
                logits = run.head(run.extractor(images))
            answers = logits[:, {"C_s": slice(0, 10), "C_t": slice(10, 20)}[name.split("/")[1]]]
            right = (answers.argmax(1) == labels).numpy()
            if "worst" in name:
                right = min((right[labels == digit] for digit in range(10)), key=np.mean)
            assert accuracy == pytest.approx(100 * right.mean()), (run.method, name)


def test_a_seed_gives_the_same_numbers_alone_and_after_others(two_seeds, without_balance):
    for method in ("source-only", "symnets"):
        first, again = two_seeds.run(method, 4), without_balance.run(method, 4)
        assert same_weights(first, again)
        assert first.history == again.history
        assert first.history != two_seeds.run(method, 3).history


def test_balance_zero_is_symnets(two_seeds, without_balance):
    runs = without_balance.run("symnets", 4), without_balance.run("symnets-balanced", 4)
    assert same_weights(*runs)
    assert not same_weights(runs[0], two_seeds.run("symnets-balanced", 4))


def test_target_labels_do_not_reach_training(demo, two_seeds, monkeypatch):
    images, labels = load_handwritten()
    shuffled = Digits(images, labels[torch.randperm(len(labels))])
    monkeypatch.setattr(train_digits, "load_handwritten", lambda: shuffled)
    for blind in demo("--seeds", "4", "--no-plots").trained:
        honest = two_seeds.run(blind.method, 4)
        assert same_weights(honest, blind)
        assert [e["loss"] for e in honest.history] == [e["loss"] for e in blind.history]
        assert honest.final["target_accuracy/C_t"] != blind.final["target_accuracy/C_t"]


def test_c_t_and_c_s_are_not_confused():
    head = symloss.SymmetricHead(3, 10)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[[2, 10 + 7]] = 1.0  # C^s says 2, C^t says 7
    digits = Digits(torch.zeros(10, 3), torch.tensor([2, 2, 2, 7, 7, 7, 7, 7, 0, 1]))
    found = train_digits.accuracies(
        torch.nn.Identity(), head, "target", digits, ("source", "target")
    )
    assert {k: v for k, v in found.items() if "accuracy" in k} == pytest.approx(
        {"target_accuracy/C_s": 30, "target_accuracy/C_t": 50}
    )


def test_the_worst_recall_is_that_of_one_digit():
    head = symloss.SymmetricHead(10, 10)
    with torch.no_grad():
        head.weight.copy_(torch.eye(10).repeat(2, 1))
        head.bias.zero_()
    labels = torch.tensor([*range(10), 4, 4, 4, 6, 6])
    read = torch.tensor(
        [*range(10), 0, 0, 4, 6, 1]
    )  # of the 4s two of four, of the 6s one of three
    digits = Digits(torch.eye(10)[read], labels)
    found = train_digits.accuracies(torch.nn.Identity(), head, "target", digits, ("target",))
    assert found == pytest.approx(
        {"target_accuracy/C_t": 100 * 12 / 15, "target_worst_recall/C_t": 50}
    )


def routed(rows, seed):
    """Routed logits of 10 categories, as leaves."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, rows, 20, generator=generator, dtype=torch.float64)
    return symloss.RoutedLogits(*(part.requires_grad_() for part in logits))


def test_balance_pulls_the_mean_prediction_to_equal_shares_beside_eq_11():
    source, target, labels, lam, weight = routed(8, 0), routed(6, 1), torch.arange(8), 0.3, 5.0
    plain = train_digits.symnets(source, labels, target, lam)
    (before,) = torch.autograd.grad(plain, target.extractor, retain_graph=True)
    unknown = symloss.EstimatedPrior(torch.full((10,), 0.1, dtype=torch.float64), trust=0.49)
    balanced = train_digits.symnets_balanced(source, labels, target, lam, weight, unknown)
    p = target.extractor.detach().numpy()
    p = np.exp(p) / np.exp(p).sum(1, keepdims=True)
    mean = (p[:, :10] + p[:, 10:]).mean(0)
    expected = weight * lam * (mean * np.log(10 * mean)).sum()
    assert (balanced - plain).item() == pytest.approx(expected)
    for tensor in (*source, target.head):  # the balance is for the extractor, on the target
        ours, theirs = (
            torch.autograd.grad(x, tensor, retain_graph=True) for x in (balanced, plain)
        )
        torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(torch.autograd.grad(balanced, target.extractor)[0], before)
    first = train_digits.symnets_balanced(source, labels, target, lam, weight)  # no estimate yet
    assert first.item() == plain.item()


def test_where_shares_differ_nothing_pulls_and_absent_digits_count_less():
    source, target, labels = routed(8, 0), routed(6, 1), torch.arange(8)
    prior = torch.tensor([0.002] * 2 + [0.1245] * 8, dtype=torch.float64)
    weight = torch.tensor([0.1] * 2 + [1.0] * 8, dtype=torch.float64)
    expected = symloss.symnet_losses(source, labels, target, weight=weight).total(0.3)
    shares = symloss.EstimatedPrior(prior, trust=0.5)
    loss = train_digits.symnets_balanced(source, labels, target, 0.3, 10.0, shares)
    assert loss.item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("counts", "trusted"), [([40] * 10, False), ([90] * 5 + [9] * 5, True), ([80] * 5, True)]
)
def test_shares_are_the_target_s_counts_or_equal_ones(counts, trusted):
    """On features that tell the digits apart; the estimate that is shrunk would be 0.01 off."""
    generator = torch.Generator().manual_seed(0)

    def clusters(labels):
        noise = 0.05 * torch.randn(len(labels), 10, generator=generator)
        return Digits(torch.eye(10)[labels] + noise, labels)

    source = clusters(torch.arange(400) % 10)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    identity = torch.nn.Identity()
    shares = train_digits.estimate_shares(identity, source, clusters(labels).images, seed=0)
    true = np.bincount(labels, minlength=10) / len(labels)
    assert (shares.trust >= 0.5) == trusted
    if not trusted:
        torch.testing.assert_close(shares.prior, torch.full((10,), 0.1))
    np.testing.assert_allclose(shares.prior.numpy(), true, atol=0.003)


def test_balance_keeps_every_digit():
    """On the development half, where SymNets alone read 1 % of the 9s by then."""
    images, labels = load_handwritten()
    source = render_digits(train_digits.SOURCE_SIZE, seed=100)
    recipe = Recipe(epochs=3)
    objective = functools.partial(train_digits.symnets_balanced, weight=recipe.balance)
    score = functools.partial(
        train_digits.accuracies,
        domain="target",
        digits=Digits(images[::2], labels[::2]),
        classifiers=["target"],
    )
    method = Method("balanced", objective, estimates=True)
    run = train_digits.train(method, source, images, score, recipe, seed=100)
    assert run.estimated.prior.sum() == pytest.approx(1)
    assert run.final["target_worst_recall/C_t"] > 50


def test_the_loss_gets_the_shares_of_the_latest_estimate(monkeypatch):
    told = iter(symloss.EstimatedPrior(torch.tensor(float(i)), trust=i / 10) for i in range(9))
    monkeypatch.setattr(train_digits, "estimate_shares", lambda *_: next(told))
    seen = []

    def objective(source, labels, target, lam, shares=None):
        seen.append(shares and int(shares.prior))
        return train_digits.symnets(source, labels, target, lam)

    method, recipe = Method("balanced", objective, estimates=True), Recipe(epochs=2, batch_size=10)
    domains = render_digits(50, seed=0), load_handwritten().images[:50]
    run = train_digits.train(method, *domains, lambda *_: {"target_accuracy/C_t": 0.0}, recipe, 0)
    assert seen == [None, None, 0, 0, 1, 1, 2, 2, 3, 3]
    assert run.estimated.trust == 0.3


def test_shares_that_are_not_trusted_are_equal_and_say_so(monkeypatch):
    told = symloss.EstimatedPrior(torch.linspace(0.05, 0.15, 10), trust=0.3)
    monkeypatch.setattr(symloss, "estimate_prior", lambda *_, **__: told)
    source = render_digits(30, seed=0)
    shares = train_digits.estimate_shares(torch.nn.Flatten(), source, source.images, seed=0)
    assert torch.equal(shares.prior, torch.full((10,), 0.1))
    assert shares.trust == 0


def test_estimating_the_shares_leaves_batch_norm_alone_and_training_on(monkeypatch):
    told, seen = symloss.EstimatedPrior(torch.full((10,), 0.1), trust=0.5), []
    monkeypatch.setattr(symloss, "estimate_prior", lambda *rows, **_: seen.extend(rows) or told)
    extractor = train_digits.build_extractor()
    source, target = render_digits(30, seed=0), load_handwritten().images[:20]
    with torch.no_grad():
        extractor(source.images)  # means and variances of its own
        before = [buffer.clone() for buffer in extractor.buffers()]
        found = train_digits.estimate_shares(extractor, source, target, seed=0)
        torch.testing.assert_close(found.prior, told.prior)
        assert extractor.training
        assert all(torch.equal(a, b) for a, b in zip(before, extractor.buffers(), strict=True))
        extractor.eval()
        for rows, images in ((seen[0], source.images), (seen[2], target)):
            torch.testing.assert_close(rows, extractor(images))
    assert torch.equal(seen[1], source.labels)


def test_scoring_leaves_batch_norm_alone():
    extractor = train_digits.build_extractor().train()
    before = [buffer.clone() for buffer in extractor.buffers()]
    head = symloss.SymmetricHead(train_digits.FEATURES, 10)
    train_digits.accuracies(extractor, head, "source", render_digits(20, seed=0), ("source",))
    assert all(torch.equal(a, b) for a, b in zip(before, extractor.buffers(), strict=True))


@pytest.mark.slow
def test_runs_as_a_script_from_another_folder(tmp_path):
    command = [sys.executable, "-W", "error", str(SCRIPT), "--epochs", "1"]
    command += ["--methods", "source-only"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "source-only" in result.stdout
    assert "Warning" not in result.stderr
    assert (tmp_path / "runs" / "digits" / "tsne.png").is_file()


def test_source_only_uses_no_target_image():
    source, images = render_digits(200, seed=0), load_handwritten().images
    recipe = Recipe(epochs=1, batch_size=50)
    first, second = (
        train_digits.train(
            Method("source-only"),
            source,
            target,
            lambda *_: {"target_accuracy/C_t": 0.0},
            recipe,
            0,
        )
        for target in (images, torch.rand_like(images))
    )
    assert same_weights(first, second)


@pytest.mark.parametrize(
    "method",
    [
        Method("source-only"),
        Method("symnets", train_digits.symnets),
        Method("balanced", functools.partial(train_digits.symnets_balanced, weight=5.0)),
    ],
    ids=METHODS,
)
def test_the_printed_digits_are_learned(method):
    source, images = printed_digits(1000, seed=0), load_handwritten().images
    recipe = Recipe(epochs=3)
    run = train_digits.train(
        method, source, images, lambda *_: {"target_accuracy/C_t": 0.0}, recipe, 0
    )
    name = "source_accuracy/C_t" if method.name == "source-only" else "source_accuracy/C_s"
    assert run.final[name] > 85  # one in ten by chance


def test_half_of_the_handwritten_digits_are_scored():
    assert len(load_handwritten().labels[train_digits.SCORED]) == 898


def test_batches_drop_the_incomplete_one():
    stream = train_digits.batches(10, 4, seed=0)
    for _ in range(3):
        epoch = torch.cat([next(stream), next(stream)])
        assert len(set(epoch.tolist())) == 8


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--methods", ["dann"]),
        ("--seeds", ["-1"]),
        ("--seeds", [str(2**32)]),
        ("--epochs", ["0"]),
        ("--batch-size", ["1"]),
        ("--batch-size", ["1798"]),
        ("--lr", ["0"]),
        ("--balance", ["-1"]),
        ("--device", ["cuda:99"]),
    ],
)
def test_a_wrong_value_gets_one_line(capsys, tmp_path, monkeypatch, option, values):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        train_digits.main([option, *values])
    assert error.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    message = [line for line in lines if "error:" in line]
    assert len(message) == 1
    assert lines[-1] == message[0]
    assert option in message[0]
    assert values[-1] in message[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [str(SCRIPT), "/proc/nothing"])
def test_a_folder_that_cannot_be_written_is_named_before_training(folder):
    with pytest.raises(SystemExit, match=f"cannot write to {folder}: "):
        console.run(lambda: train_digits.main(["--out", folder]))


def test_divergence_gets_one_line(demo):
    with pytest.raises(SystemExit, match="smaller --lr"):
        demo("--lr", "1e30")


def test_help_shows_every_default(capsys):
    with pytest.raises(SystemExit) as error:
        train_digits.main(["--help"])
    assert error.value.code == 0
    text = "".join(capsys.readouterr().out.split())
    for default in ("source-onlysymnetssymnets-balanced", "0", "0.05", "64", "10.0", "cpu"):
        assert f"(default:{default})" in text
