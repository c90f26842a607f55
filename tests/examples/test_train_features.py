"""train_features.py on made features: what is trained on what, and the files it leaves."""

import csv
import json
from pathlib import Path

import numpy as np
import predict
import pytest
import report
import torch
import train_features
from made_results import read_predictions
from office.console import UserError
from office.data import features as stored_features
from office.data.features import Extraction
from office.data.hashes import Content
from office.data.images import Preprocessing
from office.data.tasks import Domain, Task
from office.methods import METHODS
from office.models.saved import read_model
from office.options import OWN_METHODS, Frozen, Recipe
from office.training import preparation
from office.training.batches import FeatureBatches
from office.training.preparation import Plan
from office.training.runs import Run
from small_runs import RUNTIME, features, result

pytestmark = pytest.mark.usefixtures("one_thread")
CATEGORIES = ["bike", "mouse", "mug"]
WIDTH = 12


def write(out, domain, labels, *, shift=0.0, seed=0, told=True, views=2, dataset="office31"):
    """Features of a domain: a direction for each category, another for the domain, and noise."""
    rng = np.random.default_rng([seed, len(domain)])
    means = 3 * np.eye(WIDTH)[: len(CATEGORIES)]
    values = rng.normal(size=(len(labels), views, WIDTH)) + means[labels][:, None]
    values[..., -1] += shift
    extraction = Extraction(
        dataset=dataset,
        domain=domain,
        backbone="resnet18",
        weights="weights.pt",
        weights_content=Content(1, "w"),
        preprocessing=Preprocessing(),
        precision="fp32",
        views=views,
        categories=CATEGORIES,
        labels=[*labels] if told else None,
        folder=f"/data/{domain}",
        paths=[f"{i:03}.jpg" for i in range(len(labels))],
        contents=[Content(i, f"{domain}{i}{seed}") for i in range(len(labels))],
    )
    (out / dataset).mkdir(parents=True, exist_ok=True)
    stored_features.write(out / dataset, extraction, values.astype(np.float16))


@pytest.fixture
def folder(tmp_path):
    """amazon and webcam, 60 and 48 images."""
    write(tmp_path, "amazon", [0, 1, 2] * 20)
    write(tmp_path, "webcam", [0, 1, 2] * 16, shift=2.0)
    return tmp_path / "office31"


@pytest.fixture
def call(folder, tmp_path):
    """train_features.py with small batches, to ``tmp_path``/runs; returns a run's folder."""

    def run(*more, of=folder, task="A2W", method="symnets", out="runs"):
        line = [str(of), "--device", "cpu", "--batch-size", "12", "--seeds", "0"]
        line += ["--bottleneck", "8", "--out", str(tmp_path / out), "--method", method]
        train_features.main([*line, *more])
        dataset = more[more.index("--dataset") + 1] if "--dataset" in more else of.name
        return tmp_path / out / dataset / task / method / "seed0"

    return run


def fails(call, *args, **kwargs):
    """The error, of one line, that ends the script."""
    with pytest.raises(UserError) as stop:
        call(*args, **kwargs)
    assert "\n" not in str(stop.value)
    return str(stop.value)


# Batches


def made_run(source=10, target=8, views=3, method="symnets", seed=0):
    """A run and its features: (number of the image, view), so that they tell what they are of."""
    domains = [
        Domain(name, [Path(f"/{name}/{i}.jpg") for i in range(n)], [i % 3 for i in range(n)])
        for name, n in (("amazon", source), ("webcam", target))
    ]
    frozen = Frozen(2, views, "fp32")
    recipe = Recipe("office31", batch_size=4, bottleneck=4, frozen=frozen, epochs=3)
    cache = {
        path: torch.tensor([[i, v] for v in range(views)]).half() + 100 * number
        for number, domain in enumerate(domains)
        for i, path in enumerate(domain.paths)
    }
    return Run(recipe, Task("A2W", *domains, CATEGORIES), method, seed), cache


def drawn(run, cache, epoch=0, steps=4):
    """Each step's images and views of both domains, and the source labels."""
    batches = FeatureBatches(run, RUNTIME, cache).epoch(epoch, steps)
    return [([x for x in (x_s, x_t) if x is not None], y_s) for x_s, y_s, x_t in batches]


def test_an_epoch_takes_each_image_once_in_one_of_its_views():
    run, cache = made_run()
    batches = drawn(run, cache)
    assert len(batches) == 4
    for (source, target), labels in batches:
        assert source.dtype == torch.float32
        assert labels.tolist() == [i % 3 for i in source[:, 0].int().tolist()]
        assert (source < 100).all()
        assert (target >= 100).all()
    for number, images in ((0, 10), (1, 8)):
        first = torch.cat([batch[number][:, 0] for batch, _ in batches[:2]]).int() - 100 * number
        assert len(set(first.tolist())) == 8 <= images  # two batches of one order
    views = torch.cat([batch[0][:, 1] for batch, _ in drawn(run, cache, steps=40)]).int()
    assert (views.bincount(minlength=3) > 160 / 3 * 0.6).all()


def test_batches_follow_from_seed_and_epoch_alone():
    run, cache = made_run()

    def same(one, other):
        return all(torch.equal(a, b) for a, b in zip(one[0][0], other[0][0], strict=True))

    assert same(drawn(run, cache), drawn(run, cache))
    assert not same(drawn(run, cache), drawn(run, cache, epoch=1))
    assert not same(drawn(run, cache), drawn(made_run(seed=1)[0], cache))


def test_the_order_of_the_targets_labels_changes_no_batch():
    run, cache = made_run()
    target = run.task.target
    other = Domain(target.name, target.paths[::-1], target.labels[::-1])
    moved = Run(run.recipe, Task("A2W", run.task.source, other, CATEGORIES), run.method, run.seed)
    for (one, _), (two, _) in zip(drawn(run, cache), drawn(moved, cache), strict=True):
        assert torch.equal(one[1], two[1])


def test_source_only_draws_no_target():
    run, cache = made_run(method="source-only")
    assert [len(batch) for batch, _ in drawn(run, cache)] == [1] * 4


def test_predictions_are_of_the_first_view_in_the_order_of_the_paths():
    run, cache = made_run()
    paths = run.task.source.paths[::-1]
    batches = [*FeatureBatches(run, RUNTIME, cache).once(paths)]
    assert [len(batch) for batch, _ in batches] == [8, 2]
    first_views = torch.cat([batch for batch, _ in batches])
    assert torch.equal(first_views, torch.tensor([[float(i), 0.0] for i in range(10)][::-1]))


# Runs


def test_a_run_learns_and_its_files_tell_what_was_done(call):
    folder = call("--lr", "0.05")
    found = result(folder)
    assert found.accuracy > 90
    assert found.accuracy == found.final["target_accuracy/C_t"]
    assert (found.dataset, found.task, found.method, found.seed) == (
        "office31",
        "A2W",
        "symnets",
        0,
    )
    assert found.recipe["frozen"] == {"width": WIDTH, "views": 2, "precision": "fp32"}
    assert (found.recipe["epochs"], found.recipe["bottleneck"]) == (20, 8)
    assert (found.recipe["backbone"], found.recipe["weights"]) == ("resnet18", "weights.pt")
    assert len(found.epochs) == 20
    assert all("target_accuracy/C_t" in epoch for epoch in found.epochs)
    assert found.images[:2] == [60, 48]
    names = {path.name for path in folder.iterdir() if "tfevents" not in path.name}
    assert names == {".lock", "features.npz", "inputs.csv", "log.jsonl", "model.pt", "result.json"}
    with open(folder / "inputs.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert (rows[0]["path"], rows[0]["label"], rows[0]["hash"]) == ("000.jpg", "bike", "amazon00")
    assert (rows[-1]["role"], rows[-1]["path"]) == ("weights", "weights.pt")


def test_the_saved_model_takes_features(call, folder, capsys):
    run = call("--epochs", "2")
    model, saved = read_model(run / "model.pt"), features(run)
    labels = np.array([0, 1, 2] * 16)
    order = labels.argsort(kind="stable")  # a task's images come by category
    values = np.load(folder / "webcam.npy")[order, 0].astype(np.float32)
    with torch.inference_mode():
        made = model.extractor(torch.from_numpy(values))
        logits = model.classifier(made)
    torch.testing.assert_close(
        made, torch.tensor(saved.features[60:]).float(), atol=2e-3, rtol=2e-3
    )
    torch.testing.assert_close(logits, torch.tensor(saved.logits[:, 3:]))
    right = (logits.argmax(1).numpy() == labels[order]).mean()
    assert result(run).accuracy == pytest.approx(100 * right)
    with pytest.raises(SystemExit):
        predict.main([str(run / "model.pt"), "image.jpg"])
    assert "model.pt was trained on features of resnet18" in capsys.readouterr().err


def test_every_method_makes_a_row_of_the_tables(call, tmp_path, capsys):
    call("--epochs", "1", method="all")
    capsys.readouterr()
    report.main([str(tmp_path / "runs")])
    shown = capsys.readouterr().out
    assert "**Table 1. Accuracy (%) on Office-31, ours on frozen features**" in shown
    assert "| GFK | 72.8 ± 0.0 |" in shown
    table = shown[shown.index("**Table 4.") :]
    assert table.startswith("**Table 4. Accuracy (%) on Office-31, ablation, ours on frozen feat")
    assert "GFK" not in table
    assert "features frozen, views: 2 (fp32)" in table
    assert "Warning" not in shown
    for name in METHODS:
        assert (tmp_path / f"runs/office31/W2A/{name}/seed0/result.json").exists()
        assert f"{METHODS[name].row.replace('ResNet-50', 'Source only')}, ours" in shown


def test_finished_runs_are_not_run_again_and_other_features_are_refused(
    call, tmp_path, folder, capsys
):
    first = call("--epochs", "1", "--task", "A2W")
    before = (first / "result.json").read_bytes()
    capsys.readouterr()
    call("--epochs", "1", "--task", "A2W")
    assert f"already finished, see {first}" in capsys.readouterr().out
    assert (first / "result.json").read_bytes() == before
    write(tmp_path / "other", "amazon", [0, 1, 2] * 20, seed=1)
    write(tmp_path / "other", "webcam", [0, 1, 2] * 16, shift=2.0)
    told = fails(call, "--epochs", "1", "--task", "A2W", of=tmp_path / "other/office31")
    assert "belongs to another run (images " in told
    write(tmp_path / "one", "amazon", [0, 1, 2] * 20, views=1)
    write(tmp_path / "one", "webcam", [0, 1, 2] * 16, shift=2.0, views=1)
    told = fails(call, "--epochs", "1", "--task", "A2W", of=tmp_path / "one/office31")
    assert "frozen {" in told
    assert "'views': 2" in told


def test_a_run_on_images_in_the_same_folder_is_not_taken_for_one(call, tmp_path):
    first = call("--epochs", "1", "--task", "A2W")
    told = json.loads((first / "result.json").read_text())
    del told["recipe"]["frozen"]  # as a run on images before there were features
    (first / "result.json").write_text(json.dumps(told))
    assert "frozen None there" in fails(call, "--epochs", "1", "--task", "A2W")


def test_unlabelled_folders_are_predicted(call, tmp_path):
    write(tmp_path, "shop", [0, 1, 2] * 8, dataset="folders")
    write(tmp_path, "phone", [0, 1, 2] * 8, dataset="folders", told=False, shift=1.0)
    run = call("--lr", "0.05", of=tmp_path / "folders", task="shop2phone")
    found = read_predictions(run / "predictions.csv")
    assert [prediction.path for prediction in found] == [
        Path(f"/data/phone/{i:03}.jpg") for i in range(24)
    ]
    right = [p.category == CATEGORIES[i % 3] for i, p in enumerate(found)]
    assert sum(right) > 20
    assert result(run).accuracy is None


def test_partial_targets_weigh_categories(call, tmp_path):
    write(tmp_path / "p", "amazon", [0, 1, 2] * 20)
    write(tmp_path / "p", "webcam", [0, 1] * 20, shift=2.0)
    folder = tmp_path / "p/office31"
    told = fails(call, "--task", "A2W", of=folder)
    assert "missing in webcam: mug. If webcam is meant to" in told
    run = call("--task", "A2W", "--partial", "--lr", "0.05", of=folder)
    last = result(run).epochs[-1]
    assert last["weight/mug"] < 0.5 < last["weight/bike"]
    assert result(run).per_category["mug"] is None


def test_estimated_shares_spare_a_target_that_lacks_a_category(call, tmp_path, capsys):
    write(tmp_path / "p", "amazon", [0, 1, 2] * 20)
    write(tmp_path / "p", "webcam", [0, 1] * 20, shift=2.0)
    more = ["--task", "A2W", "--partial", "--balance", "5", "--lr", "0.05"]
    of = {"of": tmp_path / "p/office31", "method": "symnets-v2-balanced"}
    with pytest.warns(UserWarning, match="webcam lacks mug"):
        equal = result(call(*more, "--prior", "uniform", **of))
    capsys.readouterr()
    told = result(call(*more, out="told", **of))
    assert "The target's shares were estimated (trust 0." in capsys.readouterr().out
    assert (equal.trust, equal.expected["mug"]) == (None, pytest.approx(1 / 3))
    assert 0 < told.trust < 1  # with three categories it stays low
    assert told.expected["mug"] < 0.25
    assert sum(told.expected.values()) == pytest.approx(1)
    assert told.accuracy > equal.accuracy
    assert told.predicted["mug"] < equal.predicted["mug"]
    call(*more, out="again", **of)
    again = result(tmp_path / "again/office31/A2W/symnets-v2-balanced/seed0")
    assert (again.expected, again.epochs) == (told.expected, told.epochs)


def test_a_target_may_be_cut_to_the_benchmarks_categories(call, folder):
    run = call("--dataset", "office31-partial", "--task", "A2W", "--epochs", "1")
    assert result(run).dataset == "office31-partial"
    assert result(run).images[:2] == [60, 48]  # all three are among the ten


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--batch-size", "49"), "fewer than one batch"),
        (("--task", "A2D"), "no features for A2D"),
        (("--dataset", "office-home"), "features are of office31 or office31-partial"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(call, more, told):
    assert told in fails(call, *more)


def test_features_of_own_folders_have_own_default_methods(tmp_path, capsys, monkeypatch):
    selections = []

    def planned(stored, recipe, runtime, selection):
        selections.append(selection)
        return Plan([], [], None)

    monkeypatch.setattr(preparation, "from_features", planned)
    for domain in ("shop", "phone"):
        write(tmp_path, domain, [0, 1, 2] * 8, dataset="folders")
    line = [str(tmp_path / "folders"), "--device", "cpu"]
    for more, methods in (([], OWN_METHODS), (["--method", "symnets"], ("symnets",))):
        train_features.main([*line, *more])
        assert selections[-1].methods == methods
    with pytest.raises(SystemExit, match="0"):
        train_features.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "(default: symnets; for folders also source-only [ours])" in shown


def test_options_of_images_are_not_taken(call, capsys):
    with pytest.raises(SystemExit, match="2"):
        call("--backbone", "resnet50")
    assert "unrecognized arguments: --backbone" in capsys.readouterr().err


def test_stored_features_are_not_written_to(call, folder):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    call("--epochs", "1")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert isinstance(stored_features.read(folder)["amazon"].features, np.memmap)
