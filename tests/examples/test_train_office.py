"""Whole runs in this process: the files they leave, and what a user is told."""

import csv
import io
import json
import random
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import report
import torch
import train_office
from conftest import write_tree
from office import files
from office.console import UserError
from office.data import images
from office.data.tasks import load_task
from office.methods import METHODS
from office.models.saved import read_model
from office.training.batches import ImageBatches, Images
from office.training.runs import Run
from PIL import Image
from small_runs import (
    assert_same_run,
    assert_same_weights,
    carry_out,
    features,
    network,
    result,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*published")

FILES = [".lock", "checkpoint.pt", "features.npz", "inputs.csv", "log.jsonl"]
FILES += ["model.pt", "result.json"]


def fails(call, *args, **kwargs):
    """The one line that a call exits with."""
    with pytest.raises(SystemExit) as stop:
        call(*args, **kwargs)
    assert "\n" not in stop.value.code
    assert stop.value.code.startswith("train_office.py: error: ")
    return stop.value.code


@pytest.fixture
def stopped_at(monkeypatch):
    """A function that lets something happen when an epoch, counted from 0, would begin."""
    epoch = ImageBatches.epoch

    def stop(at, happen):
        def stopping(batches, number, steps):
            if number == at:
                happen()
            return epoch(batches, number, steps)

        monkeypatch.setattr(ImageBatches, "epoch", stopping)

    return stop


@dataclass
class Finished:
    """A finished run: what was asked for, its folder and what it printed."""

    method: str
    settings: dict[str, object]
    folder: Path
    printed: str


def finish(method, **settings):
    """Do a small run."""
    with redirect_stdout(io.StringIO()) as printed:
        folder = carry_out(method, **settings)
    return Finished(method, settings, folder, printed.getvalue())


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """amazon and webcam, nine images each, for runs that several tests look at."""
    return write_tree(tmp_path_factory.mktemp("data"), images=3)


@pytest.fixture(scope="module")
def symnets(shared, tmp_path_factory):
    """SymNets, for two epochs of two steps."""
    out = tmp_path_factory.mktemp("symnets")
    return finish("symnets", root=shared, out=out, bottleneck=4, lr=0.02, cache="off")


@pytest.fixture
def copied(symnets, tmp_path):
    """A copy of the SymNets run, to be changed, and the settings that belong to it."""
    shutil.copytree(symnets.settings["out"], tmp_path / "copied")
    settings = symnets.settings | {"out": tmp_path / "copied"}
    return settings["out"] / symnets.folder.relative_to(symnets.settings["out"]), settings


@pytest.fixture(scope="module")
def every_method(shared, tmp_path_factory):
    """Settings of two steps with every method, done, and the folder of all of them."""
    out = tmp_path_factory.mktemp("methods")
    settings = {"root": shared, "out": out, "max_steps": 2, "batch_size": 6}
    carry_out(methods=tuple(METHODS), **settings)
    return settings, out / "office31" / "A2W"


@pytest.fixture(scope="module", params=["symnets", "symnets-wo-target-task", "source-only"])
def trained(request, tmp_path_factory):
    """A run long enough for accuracies that differ, between domains that differ, and its task."""
    root = write_tree(tmp_path_factory.mktemp("data"), images=4)
    for name in ("mouse/3", "mug/2", "mug/3"):
        (root / "amazon" / f"{name}.jpg").unlink()
    for name in ("bike/2", "bike/3", "mouse/3", "mug/0", "mug/3"):
        (root / "webcam" / f"{name}.jpg").unlink()
    out = tmp_path_factory.mktemp("trained")
    run = finish(request.param, root=root, out=out, max_steps=40, lr=0.1, bottleneck=8)
    return run, load_task("office31", root, "A2W")


# The files of a run


@pytest.mark.parametrize("name", METHODS)
def test_a_run_leaves_its_files(every_method, name):
    folder = every_method[1] / name / "seed0"
    assert sorted(p.name for p in folder.iterdir() if "tfevents" not in p.name) == FILES
    assert len([*folder.glob("events.out.tfevents.*")]) == 1
    saved = result(folder)
    assert (saved.dataset, saved.task) == ("office31", "A2W")
    assert (saved.method, saved.seed) == (name, 0)
    assert saved.classifier == METHODS[name].classifier
    assert saved.accuracy == saved.final[f"target_accuracy/{saved.classifier}"]
    names = {"target_accuracy/C_t", "target_accuracy/C_s", "source_accuracy/C_s"}
    if not name.startswith("symnets"):
        names = {"target_accuracy/C_t", "source_accuracy/C_t"}
    assert saved.final.keys() == names
    assert saved.final.items() <= saved.epochs[-1].items()
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert log == saved.epochs


def share(right):
    """In %, of a vector of booleans."""
    return pytest.approx(100 * right.sum().item() / len(right))


def test_accuracies_and_confusion_are_those_of_the_saved_logits(trained):
    run, task = trained
    saved, logits = result(run.folder), features(run.folder).logits
    assert logits.dtype == np.float32
    assert logits.shape == ((7, 6) if run.method.startswith("symnets") else (7, 3))
    by_classifier = {"C_t": logits[:, -3:]}
    if run.method.startswith("symnets"):
        by_classifier["C_s"] = logits[:, :3]
    for classifier, part in by_classifier.items():
        right = part.argmax(1) == task.target.labels
        assert saved.final[f"target_accuracy/{classifier}"] == share(right)
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (task.target.labels, by_classifier[saved.classifier].argmax(1)), 1)
    assert saved.confusion == confusion.tolist()
    recalls = 100 * np.diag(confusion) / [2, 3, 2]
    assert saved.per_category == pytest.approx(dict(zip(saved.categories, recalls, strict=True)))
    assert saved.images[:2] == [9, 7]


def test_saved_features_are_of_both_domains_in_the_tasks_order(trained):
    run, task = trained
    saved = features(run.folder)
    assert saved.features.shape == (16, 8)
    assert saved.features.dtype == np.float16
    assert saved.domain.tolist() == [0] * 9 + [1] * 7
    assert saved.label.tolist() == task.source.labels + task.target.labels


def test_a_saved_model_gives_the_saved_features_and_accuracies(trained):
    run, task = trained
    model, saved = read_model(run.folder / "model.pt"), features(run.folder)
    final = result(run.folder).final
    transform = images.eval_transform(model.preprocessing)
    paths = task.source.paths + task.target.paths
    with torch.inference_mode():
        made = model.extractor(torch.stack([transform(images.load_image(p)) for p in paths]))
        predicted = model.classifier(made[9:]).argmax(1)
        weights = network(run.folder)
        logits = made @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(made, torch.tensor(saved.features).float(), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(logits[9:], torch.tensor(saved.logits), atol=1e-5, rtol=1e-5)
    assert result(run.folder).accuracy == share(predicted == torch.tensor(task.target.labels))
    first = "C_s" if run.method.startswith("symnets") else "C_t"  # the only one
    right = logits[:9, :3].argmax(1) == torch.tensor(task.source.labels)
    assert final[f"source_accuracy/{first}"] == share(right)
    assert (model.preprocessing.resize, model.preprocessing.crop) == (36, 32)
    assert model.categories == task.categories


def test_a_run_ends_with_a_diagnosis_of_its_target_without_labels(trained):
    run, _ = trained
    saved, logits = result(run.folder), features(run.folder).logits
    counted = logits[:, :3] if saved.classifier == "C_s" else logits[:, -3:]
    shares = np.bincount(counted.argmax(1), minlength=3) / 7
    assert [*saved.predicted.values()] == pytest.approx(shares)
    assert [*saved.expected.values()] == pytest.approx([4 / 9, 3 / 9, 2 / 9])
    same = np.mean(logits[:, :3].argmax(1) == logits[:, -3:].argmax(1))
    assert saved.agreement == (None if run.method == "source-only" else pytest.approx(same))
    end = run.printed.split("done in")[1].split("\n", 1)
    assert f", see {run.folder}" in end[0]
    assert end[1].startswith(saved.diagnosis.describe("--method symnets-balanced"))


def test_features_that_float16_does_not_hold_are_saved_as_float32(office, monkeypatch):
    predict = train_office.predict

    def large(*args):
        features, logits = predict(*args)
        return torch.full_like(features, 7e4), logits

    monkeypatch.setattr(train_office, "predict", large)
    saved = features(office(max_steps=2))
    assert saved.features.dtype == np.float32
    assert (saved.features == 7e4).all()


@pytest.mark.parametrize("part", [0, 1])
def test_a_network_that_ends_without_finite_numbers_is_no_finished_run(office, monkeypatch, part):
    predict = train_office.predict

    def broken(*args):
        features_and_logits = predict(*args)
        features_and_logits[part][-1, 0] = torch.nan
        return features_and_logits

    monkeypatch.setattr(train_office, "predict", broken)
    line = fails(office, max_steps=2)
    assert "features or logits are not finite; the run has diverged, try a lower --lr" in line
    monkeypatch.undo()
    assert "holds finished epochs of this run: continue it with --resume" in fails(
        office, max_steps=2
    )


def test_a_result_tells_how_it_was_made(symnets):
    saved = result(symnets.folder)
    assert saved.categories == ["bike", "mouse", "mug"]
    assert saved.images[:2] == [9, 9]
    assert saved.recipe["lr"] == 0.02
    assert (saved.recipe["max_steps"], saved.recipe["epochs"]) == (None, 2)
    assert saved.recipe["preprocessing"]["resize"] == 36
    assert saved.machine == {"device": "cpu", "workers": 0, "cache": "off"}
    assert saved.versions["torch"] == torch.__version__
    assert saved.processes == 1
    assert saved.seconds > 0
    assert saved.peak_memory_bytes is None  # on a CPU


def test_only_the_balanced_method_depends_on_the_weight_of_the_balance(every_method, tmp_path):
    settings, folder = every_method
    zero, five = (
        carry_out(
            "symnets-balanced", **settings | {"balance": weight, "out": tmp_path / f"{weight}"}
        )
        for weight in (0.0, 5.0)
    )
    assert [result(run).recipe["balance"] for run in (zero, five)] == [0.0, 5.0]
    plain = folder / "symnets" / "seed0"
    assert "balance" not in result(plain).recipe
    assert_same_weights(plain, zero)
    with pytest.raises(AssertionError):
        assert_same_weights(plain, five)


def test_tensorboard_has_every_scalar_of_every_epoch(symnets):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(symnets.folder)).Reload()
    terms = {"source_task", "target_task", "domain_discrimination"}
    terms |= {"category_confusion", "domain_confusion", "symmetric_entropy"}
    scores = ["target_accuracy/C_t", "target_accuracy/C_s", "source_accuracy/C_s"]
    scalars = {f"loss/{term}" for term in terms} | {*scores, "lambda", "lr/backbone", "lr/head"}
    assert set(events.Tags()["scalars"]) == scalars
    rates = [[e.value for e in events.Scalars(f"lr/{part}")] for part in ("backbone", "head")]
    assert rates[1] == pytest.approx([10 * rate for rate in rates[0]])
    epochs = result(symnets.folder).epochs
    for name in scores[:2]:
        curve = {e.step: e.value for e in events.Scalars(name)}
        assert curve == pytest.approx({2: epochs[0][name], 4: epochs[1][name]})
    assert [e.step for e in events.Scalars(scores[2])] == [4]


def test_each_line_on_the_console_says_whose_accuracy_it_is(symnets):
    lines = [line for line in symnets.printed.splitlines() if line.startswith("epoch")]
    saved = result(symnets.folder)
    assert len(lines) == 2
    for line, epoch in zip(lines, saved.epochs, strict=True):
        t, s = (epoch[f"target_accuracy/{name}"] for name in ("C_t", "C_s"))
        assert f"target C_t {t:.1f} %  target C_s {s:.1f} %" in line
    assert f"source C_s {saved.final['source_accuracy/C_s']:.1f} %" in lines[1]


# Which runs


def test_finished_runs_are_not_run_again(every_method, capsys):
    settings, folder = every_method
    assert {path.parents[1].name for path in folder.rglob("result.json")} == set(METHODS)
    finished = folder / "symnets-wo-entropy" / "seed0"
    written = (finished / "result.json").stat().st_mtime_ns
    carry_out("symnets-wo-entropy", **settings)
    assert f"already finished, see {finished}" in capsys.readouterr().out
    assert (finished / "result.json").stat().st_mtime_ns == written
    line = fails(carry_out, "symnets-wo-entropy", **settings | {"lr": 0.02})
    assert f"{finished / 'result.json'} belongs to another run (lr 0.01 there, 0.02 here)" in line


def test_all_runs_every_task_whole_tables_first(tree, office, capsys):
    root = tree(domains=("amazon", "webcam", "dslr"), images=2, name="three")
    office(root=root, tasks=("all",), seeds=(0, 1), method="source-only", max_steps=1)
    starts = [line for line in capsys.readouterr().out.splitlines() if line.endswith("1 steps")]
    tasks = ["A2W", "A2D", "W2A", "W2D", "D2A", "D2W"]
    expected = {f"office31 {task} source-only seed {seed}" for task in tasks for seed in (0, 1)}
    titles = [line.split(":")[0] for line in starts]
    assert set(titles) == expected
    assert len(titles) == 12
    assert [title[-1] for title in titles] == ["0"] * 6 + ["1"] * 6


@pytest.mark.parametrize("method", ["symnets", "source-only"])
def test_a_target_that_lacks_categories_is_trained_on_as_partial(
    office, root, tmp_path, capsys, method
):
    shutil.rmtree(root / "webcam/mouse")
    settings = {"root": None, "source": root / "amazon", "target": root / "webcam"}
    settings |= {"dataset": "folders", "tasks": ("all",), "method": method}
    with pytest.raises(SystemExit, match=r"missing in webcam: mouse.* add --partial"):
        office(**settings)
    office(**settings, partial=True)
    (folder,) = (p.parent for p in tmp_path.rglob("result.json"))
    saved, logits = result(folder), features(folder).logits
    assert saved.categories == ["bike", "mouse", "mug"]
    assert logits.shape == (6, 3 if method == "source-only" else 6)
    predicted = logits[:, -3:].argmax(1)
    assert saved.accuracy == share(predicted == [0, 0, 0, 2, 2, 2])
    assert saved.per_category["mouse"] is None
    assert saved.per_category["mug"] == share(predicted[3:] == 2)
    assert saved.recipe.get("partial") == (None if method == "source-only" else True)
    assert read_model(folder / "model.pt").classifier.out_features == 3
    out = capsys.readouterr().out
    assert "target C_t" in out
    assert "weight/" not in out
    report.main([str(tmp_path / "runs")])
    assert "Accuracy (%) on folders" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["source-only", "symnets"])
def test_partial_office31_needs_no_partial(office, tree, method):
    root = tree(categories=["bike", "desk", "mug"], images=3, name="three")
    folder = office(dataset="office31-partial", root=root, method=method, max_steps=2)
    saved = result(folder)
    assert (saved.dataset, saved.images[:2]) == ("office31-partial", [9, 6])
    assert saved.per_category["desk"] is None
    assert saved.recipe.get("partial") == (None if method == "source-only" else False)
    assert not any(name.startswith("weight/") for name in saved.epochs[-1])


def test_a_target_without_categories_is_predicted(office, root, tmp_path):
    target = tmp_path / "mine"
    target.mkdir()
    for i, image in enumerate(sorted((root / "webcam").rglob("*.jpg"))):
        image.rename(target / f"{i}.jpg")
    domains = {"root": None, "source": root / "amazon", "target": target}
    office(dataset="folders", **domains, tasks=("all",))
    (folder,) = (p.parent for p in tmp_path.rglob("result.json"))
    with open(folder / "predictions.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    saved, arrays = result(folder), features(folder)
    shares = torch.tensor(arrays.logits[:, 3:]).softmax(1)  # C_t's
    assert [row["path"] for row in rows] == sorted(str(p) for p in target.iterdir())
    for row, of_image in zip(rows, shares, strict=True):
        assert row["category"] == saved.categories[int(of_image.argmax())]
        assert float(row["confidence"]) == pytest.approx(float(of_image.max()), abs=1e-4)
    assert (saved.accuracy, saved.confusion) == (None, None)
    assert saved.final["target_accuracy/C_t"] is None
    assert saved.final["source_accuracy/C_s"] is not None
    assert arrays.label.tolist()[9:] == [-1] * 9


# What the numbers do not depend on


@pytest.mark.parametrize("partial", [False, True])
def test_training_is_bit_identical_when_target_labels_are_shuffled(office, monkeypatch, partial):
    folder = office(partial=partial)

    def shuffled(*args, **options):
        task = load_task(*args, **options)
        random.Random(0).shuffle(task.target.labels)
        return task

    monkeypatch.setattr("office.training.preparation.load_task", shuffled)
    other = office(partial=partial, out="shuffled")
    assert_same_weights(folder, other)
    labels = [features(f).label[9:].tolist() for f in (folder, other)]
    assert labels[0] != labels[1]


def test_training_is_bit_identical_when_the_targets_list_is_shuffled(office, tree):
    root = tree("list", name="lists", images=3)
    folder = office(root=root)
    path = root / "list" / "webcamList.txt"
    names, labels = zip(*map(str.split, path.read_text().splitlines()), strict=True)
    path.write_text(
        "".join(f"{i} {k}\n" for i, k in zip(names, labels[1:] + labels[:1], strict=True))
    )
    assert_same_weights(folder, office(out="shuffled", root=root))


def count_reads(monkeypatch):
    """Return the list that each image's path is added to when its pixels are read."""
    read, reads = Image.open, []
    monkeypatch.setattr(Image, "open", lambda path: reads.append(path) or read(path))
    return reads


def test_results_do_not_depend_on_the_cache(office, tree, capsys, monkeypatch):
    root = tree(images=5, size=(60, 44), name="wide")
    folder = office(root=root, cache="off", out="off")
    assert "images in memory" not in capsys.readouterr().out
    reads = count_reads(monkeypatch)
    for where in ("ram", "device"):
        other = office(root=root, cache=where, out=where)
        out = capsys.readouterr().out
        assert "images in memory: 159kB\n" in out  # 30 of 3 x 36 x 49 bytes
        assert out.index("images in memory") < out.index(" steps")
        assert len(reads) == len(set(reads)) == 30
        reads.clear()
        assert_same_run(folder, other)
    office(root=root, cache="ram", out="off")
    assert "already finished" in capsys.readouterr().out


def test_images_are_decoded_once_in_a_sweep(office, tree, monkeypatch):
    root = tree(domains=("amazon", "webcam", "dslr"), images=2, name="three")
    reads = count_reads(monkeypatch)
    office(root=root, tasks=("A2W", "A2D"), seeds=(0, 1), max_steps=1)
    assert sorted(reads) == sorted(root.rglob("*.jpg"))


def test_source_only_sees_target_images_in_evaluation_alone(office, monkeypatch):
    seen = []
    read = Images.__getitem__

    def spy(dataset, key):
        seen.append((dataset.paths[key[0]].parts[-3], key[1] is None))
        return read(dataset, key)

    monkeypatch.setattr(Images, "__getitem__", spy)
    office(method="source-only", epochs=1)
    assert set(seen) == {("amazon", False), ("amazon", True), ("webcam", True)}


# Stopped runs


def interrupt():
    raise KeyboardInterrupt


def test_ctrl_c_names_the_checkpoint_and_resume_goes_on_bit_for_bit(
    office, stopped_at, capsys, monkeypatch
):
    recipe = {"epochs": 4}
    folder = office(**recipe)
    stopped_at(2, interrupt)
    with pytest.raises(SystemExit) as stop:
        office(**recipe, out="stopped")
    assert stop.value.code == 130
    other = folder.parents[4] / "stopped" / folder.relative_to(folder.parents[3])
    assert f"{other / 'checkpoint.pt'} holds the finished epochs; continue with --resume" in (
        capsys.readouterr().out
    )
    monkeypatch.undo()
    assert "continue it with --resume" in fails(office, **recipe, out="stopped")
    office(**recipe, out="stopped", resume=True)
    assert "8 steps, 4 done" in capsys.readouterr().out
    assert_same_run(folder, other)
    assert result(other).seconds > 0


@pytest.mark.parametrize("method", ["symnets", "symnets-v2-balanced"])
def test_the_weights_of_partial_adaptation_survive_a_resume(
    office, root, stopped_at, monkeypatch, method
):
    shutil.rmtree(root / "webcam/mouse")
    shares = (("bike", 0.4), ("mouse", 0.1), ("mug", 0.5))
    recipe = {"method": method, "partial": True, "prior": shares, "epochs": 4, "lr": 0.1}
    recipe["batch_size"] = 6
    folder = office(**recipe)
    stopped_at(2, interrupt)
    with pytest.raises(SystemExit):
        office(**recipe, out="stopped")
    monkeypatch.undo()
    other = office(**recipe, out="stopped", resume=True)
    assert_same_run(folder, other)
    weights = [
        [epoch[f"weight/{name}"] for name in ("bike", "mouse", "mug")]
        for epoch in result(folder).epochs
    ]
    assert len(weights) == 4
    assert weights[0] == [1.0] * 3
    assert len(set(map(tuple, weights))) == 4
    assert all(max(row) == pytest.approx(1) and min(row) > 0 for row in weights)


def test_estimated_shares_survive_a_resume(office, stopped_at, monkeypatch):
    recipe = {"method": "symnets-v2-balanced", "batch_size": 6, "epochs": 8, "lr": 0.1}
    seen, estimate = [], train_office.estimate_prior

    def spy(*args):
        estimated = estimate(*args)
        seen.append((args[-1], estimated.prior.tolist()))
        return estimated

    monkeypatch.setattr(train_office, "estimate_prior", spy)
    folder = office(**recipe)
    assert [step for step, _ in seen] == [0, 1, 3, 4, 6]
    whole = seen.copy()
    stopped_at(2, interrupt)
    with pytest.raises(SystemExit):
        office(**recipe, out="stopped")
    stopped_at(99, interrupt)
    del seen[:]
    other = office(**recipe, out="stopped", resume=True)
    assert seen == whole[2:]  # step 2 goes on with the shares of step 1
    assert_same_run(folder, other)
    assert result(other).expected == result(folder).expected
    assert result(other).trust == result(folder).trust is not None


def test_scalars_after_the_checkpoint_are_written_once(office, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    save = Run.save_checkpoint

    def killed(run, out, content):
        if len(content["history"]) == 3:
            raise KeyboardInterrupt
        save(run, out, content)

    monkeypatch.setattr(Run, "save_checkpoint", killed)
    with pytest.raises(SystemExit):
        office(epochs=4)  # of two steps
    monkeypatch.undo()
    events = EventAccumulator(str(office(epochs=4, resume=True))).Reload()
    for name in ("lambda", "target_accuracy/C_t"):
        assert [event.step for event in events.Scalars(name)] == [2, 4, 6, 8]


def test_ctrl_c_in_the_first_epoch_leaves_no_checkpoint(office, stopped_at, capsys):
    stopped_at(0, interrupt)
    with pytest.raises(SystemExit):
        office()
    assert "no epoch was finished, so there is no checkpoint" in capsys.readouterr().out


def test_a_run_that_was_killed_before_its_result_only_writes_its_files(copied, monkeypatch):
    folder, settings = copied
    kept = {name: (folder / name).read_bytes() for name in ("features.npz", "model.pt")}
    expected = result(folder)
    for name in ("result.json", *kept):
        (folder / name).unlink()
    monkeypatch.delattr(ImageBatches, "_draw")
    carry_out(**settings, resume=True)
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    again = result(folder)
    assert (again.epochs, again.final) == (expected.epochs, expected.final)
    assert again.seconds >= expected.seconds / 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried ..."),
    ],
)
def test_out_of_memory_is_one_line(office, stopped_at, error):
    def happen():
        raise error

    stopped_at(0, happen)
    assert "out of memory: try a smaller --batch-size" in fails(office)


def test_a_full_disk_leaves_the_last_good_checkpoint(office, stopped_at, monkeypatch):
    resource = pytest.importorskip("resource")
    recipe = {"epochs": 4, "bottleneck": 1024}  # so that the checkpoint is by far the largest file
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    stopped_at(2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1])))
    try:
        line = fails(office, **recipe)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        monkeypatch.undo()
    assert "cannot write" in line
    assert "the previous file is intact" in line
    folder = office(**recipe, out="whole")
    path = folder.parents[4] / "runs" / folder.relative_to(folder.parents[3]) / "checkpoint.pt"
    assert str(path) in line
    assert [p.name for p in path.parent.glob(".*")] == [".lock"]
    assert len(files.load(path)["history"]) == 2
    office(**recipe, resume=True)
    assert_same_run(folder, path.parent)


def test_checkpoints_of_other_runs_are_refused_before_anything_is_trained(copied, capsys):
    folder, settings = copied
    (folder / "result.json").unlink()
    settings |= {
        "methods": ("source-only", "symnets"),
        "resume": True,
    }  # the first could be trained
    line = fails(carry_out, **settings | {"lr": 0.03})
    assert f"{folder / 'checkpoint.pt'} belongs to another run (lr 0.02 there, 0.03 here)" in line
    assert not (folder.parents[1] / "source-only").exists()
    (folder / "checkpoint.pt").write_bytes(b"something else")
    assert f"cannot read {folder / 'checkpoint.pt'}" in fails(carry_out, **settings)
    assert "steps" not in capsys.readouterr().out


# What a user is told


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tasks": ("A2A",)}, "no task A2A"),
        ({"tasks": ("A2X",)}, "no task A2X"),
        ({"batch_size": 10}, "amazon has 9 images, fewer than one batch"),
        ({"backbone": "squeezenet1_0"}, "squeezenet1_0 must end in a linear layer"),
        ({"weights": "nowhere.pt"}, "no such file: nowhere.pt"),
        ({"lr": 1e30}, "a loss is not finite"),
    ],
)
def test_impossible_settings_exit_with_one_line(changes, why, office):
    assert why in fails(office, **changes)


def test_main_runs_what_the_command_line_asks_for(root, tmp_path, capsys):
    argv = f"--dataset office31 --root {root} --task A2W --device cpu --batch-size 4"
    with pytest.raises(UserError, match="/dev/null/x"):
        train_office.main([*argv.split(), "--out", "/dev/null/x", "--weights", "none"])
    with pytest.raises(SystemExit) as stop:
        train_office.main([*argv.split(), "--check"])
    assert stop.value.code == 0
    assert "18 of 18 images can be read" in capsys.readouterr().out


def test_a_missing_data_set_is_explained(office, tmp_path):
    with pytest.raises(SystemExit, match="dslr not found"):
        office(tasks=("A2D",))
    with pytest.raises(SystemExit) as stop:
        office(root=tmp_path / "nowhere")
    for words in (
        f"{tmp_path / 'nowhere'} is not a folder",
        "<category>",
        "Saenko",
        "train_digits.py",
    ):
        assert words in stop.value.code


def test_broken_images_and_empty_categories_are_named(office, root, capsys):
    image = root / "webcam" / "mug" / "1.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:300])
    for cache in ("ram", "off"):
        assert f"cannot read the image {image}" in fails(office, out=cache, cache=cache)
    for content, code in ((whole[:300], 1), (whole, 0)):
        image.write_bytes(content)
        with pytest.raises(SystemExit) as stop:
            office(check=True)
        assert stop.value.code == code
        assert (str(image) in capsys.readouterr().out) == bool(code)
    for i in range(3):
        (root / "amazon" / "mug" / f"{i}.jpg").unlink()
    assert "category mug of domain amazon has no images" in fails(office)
