"""Whole runs in this process: the files they leave, and what a user is told."""

import csv
import json
import random
import shutil

import numpy as np
import pytest
import report
import torch
import train_office
from conftest import write_tree
from office import files
from office.data import images
from office.data.datasets import load_task
from office.data.images import Images
from office.models.saved import read_model
from office.results import health
from office.training.methods import METHODS
from office.training.runs import Run
from office.training.trainer import Trainer
from small_runs import (
    assert_same_run,
    assert_same_weights,
    carry_out,
    features,
    network,
    result,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*published")

FILES = ["checkpoint.json", "checkpoint.pt", "features.npz", "inputs.csv", "log.jsonl"]
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
    epoch = Trainer.epoch

    def stop(at, happen):
        def stopping(trainer, number, callback=None):
            if number == at:
                happen()
            return epoch(trainer, number, callback)

        monkeypatch.setattr(Trainer, "epoch", stopping)

    return stop


# The files of a run


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore:.*twice the 3 categories")
def test_a_run_leaves_its_files(office, name):
    folder = office(method=name, max_steps=2)
    assert sorted(p.name for p in folder.iterdir() if "tfevents" not in p.name) == FILES
    assert len([*folder.glob("events.out.tfevents.*")]) == 1
    found = result(folder)
    assert (found.dataset, found.task) == ("office31", "A2W")
    assert (found.method, found.seed) == (name, 0)
    assert found.classifier == METHODS[name].classifier
    assert found.accuracy == found.final[f"target_accuracy/{found.classifier}"]
    names = {"target_accuracy/C_t", "target_accuracy/C_s", "source_accuracy/C_s"}
    if not name.startswith("symnets"):
        names = {"target_accuracy/C_t", "source_accuracy/C_t"}
    assert found.final.keys() == names
    assert found.final.items() <= found.epochs[-1].items()
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert log == found.epochs


@pytest.fixture(scope="module", params=["symnets", "symnets-wo-target-task", "source-only"])
def trained(request, tmp_path_factory):
    """Method, task and folder of a run long enough for accuracies that differ."""
    root = write_tree(tmp_path_factory.mktemp("data"), images=3)
    for name in ("bike/2.jpg", "mug/0.jpg"):  # so that the domains differ in length
        (root / "webcam" / name).unlink()
    settings = {"max_steps": 40, "lr": 0.1, "bottleneck": 8}
    out = tmp_path_factory.mktemp("runs")
    folder = carry_out(request.param, root=root, out=out, **settings)
    return request.param, load_task("office31", root, "A2W"), folder


def share(right):
    """In %, of a vector of booleans."""
    return pytest.approx(100 * right.sum().item() / len(right))


def test_a_result_counts_what_the_saved_logits_say(trained):
    name, task, folder = trained
    found, saved = result(folder), features(folder)
    assert saved.logits.dtype == np.float32
    assert saved.logits.shape == ((7, 6) if name.startswith("symnets") else (7, 3))
    logits = {"C_t": saved.logits[:, -3:]}
    if name.startswith("symnets"):
        logits["C_s"] = saved.logits[:, :3]
    for classifier, part in logits.items():
        right = part.argmax(1) == task.target.labels
        assert found.final[f"target_accuracy/{classifier}"] == share(right)
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (task.target.labels, logits[found.classifier].argmax(1)), 1)
    assert found.confusion == confusion.tolist()
    recalls = 100 * np.diag(confusion) / [2, 3, 2]
    assert found.per_category == pytest.approx(dict(zip(found.categories, recalls, strict=True)))
    assert found.images[:2] == [9, 7]


def test_saved_features_are_of_both_domains_in_the_tasks_order(trained):
    _, task, folder = trained
    saved = features(folder)
    assert saved.features.shape == (16, 8)
    assert saved.features.dtype == np.float16
    assert saved.domain.tolist() == [0] * 9 + [1] * 7
    assert saved.label.tolist() == task.source.labels + task.target.labels


def test_features_that_float16_does_not_hold_are_saved_as_float32(office, monkeypatch):
    predict = Trainer.predict
    monkeypatch.setattr(Trainer, "predict", lambda *a: (predict(*a)[0] * 0 + 7e4, predict(*a)[1]))
    saved = features(office(max_steps=2))
    assert saved.features.dtype == np.float32
    assert (saved.features == 7e4).all()


@pytest.mark.parametrize("part", [0, 1])
def test_a_network_that_ends_without_finite_numbers_is_no_finished_run(office, monkeypatch, part):
    predict = Trainer.predict

    def broken(trainer, paths):
        found = predict(trainer, paths)
        found[part][-1, 0] = torch.nan
        return found

    monkeypatch.setattr(Trainer, "predict", broken)
    line = fails(office, max_steps=2)
    assert "features or logits are not finite; the run has diverged, try a lower --lr" in line
    monkeypatch.undo()
    assert "holds epoch 1 of this run: continue it with --resume" in fails(office, max_steps=2)


def test_a_saved_model_gives_the_saved_features_and_accuracies(trained):
    name, task, folder = trained
    model, found, saved = read_model(folder / "model.pt"), result(folder), features(folder)
    transform = images.eval_transform(model.preprocessing)
    paths = task.source.paths + task.target.paths
    with torch.inference_mode():
        made = model.extractor(torch.stack([transform(images.load_image(p)) for p in paths]))
        answers = model.classifier(made[9:])
        weights = network(folder)
        logits = made @ weights["heads.task.weight"].T + weights["heads.task.bias"]
    torch.testing.assert_close(made, torch.tensor(saved.features).float(), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(logits[9:], torch.tensor(saved.logits), atol=1e-5, rtol=1e-5)
    assert found.accuracy == share(answers.argmax(1) == torch.tensor(task.target.labels))
    first = "C_s" if name.startswith("symnets") else "C_t"  # the only one
    right = logits[:9, :3].argmax(1) == torch.tensor(task.source.labels)
    assert found.final[f"source_accuracy/{first}"] == share(right)
    assert (model.preprocessing.resize, model.preprocessing.crop) == (36, 32)
    assert model.categories == task.categories


def test_a_result_tells_how_it_was_made(office):
    found = result(office(max_steps=2, lr=0.02, cache="off"))
    assert found.categories == ["bike", "mouse", "mug"]
    assert found.images[:2] == [9, 9]
    assert found.recipe["lr"] == 0.02
    assert (found.recipe["max_steps"], found.recipe["epochs"]) == (2, None)
    assert found.recipe["preprocessing"]["resize"] == 36
    assert found.machine == {"device": "cpu", "workers": 0, "cache": "off"}
    assert found.versions["torch"] == torch.__version__
    assert found.processes == 1
    assert found.seconds > 0
    assert found.peak_memory_bytes > 10_000_000


@pytest.mark.filterwarnings("ignore:.*twice the 3 categories")
def test_only_the_balanced_method_tells_its_weight_and_learns_by_it(office):
    methods = ("symnets", "symnets-balanced")
    runs = [
        {method: folder.parents[1] / method / "seed0" for method in methods}
        for folder in (
            office(methods=methods, balance=weight, max_steps=2, out=f"balance{weight}")
            for weight in (0.0, 5.0)
        )
    ]
    assert [result(run["symnets-balanced"]).recipe["balance"] for run in runs] == [0.0, 5.0]
    assert "balance" not in result(runs[0]["symnets"]).recipe
    assert_same_run(*(run["symnets"] for run in runs))
    assert_same_weights(runs[0]["symnets"], runs[0]["symnets-balanced"])
    with pytest.raises(AssertionError):
        assert_same_weights(*(run["symnets-balanced"] for run in runs))


def test_tensorboard_has_every_scalar_of_every_epoch(office):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = office(bottleneck=4)
    events = EventAccumulator(str(folder)).Reload()
    terms = {"source_task", "target_task", "domain_discrimination"}
    terms |= {"category_confusion", "domain_confusion", "symmetric_entropy"}
    scores = ["target_accuracy/C_t", "target_accuracy/C_s", "source_accuracy/C_s"]
    wanted = {f"loss/{term}" for term in terms} | {*scores, "lambda", "lr/backbone", "lr/head"}
    assert set(events.Tags()["scalars"]) == wanted
    rates = [[e.value for e in events.Scalars(f"lr/{part}")] for part in ("backbone", "head")]
    assert rates[1] == pytest.approx([10 * rate for rate in rates[0]])
    epochs = result(folder).epochs
    for name in scores[:2]:
        found = {e.step: e.value for e in events.Scalars(name)}
        assert found == pytest.approx({2: epochs[0][name], 4: epochs[1][name]})
    assert [e.step for e in events.Scalars(scores[2])] == [4]


def test_each_line_on_the_console_says_whose_accuracy_it_is(office, capsys):
    folder = office()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2
    for line, epoch in zip(lines, result(folder).epochs, strict=True):
        t, s = (epoch[f"target_accuracy/{name}"] for name in ("C_t", "C_s"))
        assert f"target C_t {t:.1f} %  C_s {s:.1f} %" in line
    assert f"source C_s {result(folder).final['source_accuracy/C_s']:.1f} %" in lines[1]


@pytest.mark.parametrize("method", ["symnets", "symnets-wo-target-task", "source-only"])
def test_a_finished_run_tells_of_its_target_without_labels(root, office, capsys, method):
    shutil.rmtree(root / "amazon/mug")  # the source has 4 bikes, 3 mice, 2 mugs
    write_tree(root, domains=["amazon"], categories=["bike"], images=4)
    write_tree(root, domains=["amazon"], categories=["bike", "mouse", "mug"], images=2)
    found = result(office(method=method, max_steps=1))
    logits = features(office(method=method, max_steps=1)).logits
    answers = logits[:, :3] if found.classifier == "C_s" else logits[:, -3:]
    shares = np.bincount(answers.argmax(1), minlength=3) / 9
    assert [*found.predicted.values()] == pytest.approx(shares)
    assert [*found.expected.values()] == pytest.approx([4 / 9, 3 / 9, 2 / 9])
    same = np.mean(logits[:, :3].argmax(1) == logits[:, -3:].argmax(1))
    assert found.agreement == (None if method == "source-only" else pytest.approx(same))
    told = health.diagnosis(found).describe("--method symnets-balanced")
    assert f", see {root.parent}" in (out := capsys.readouterr().out)
    assert out.split("done in")[1].split("\n", 1)[1].startswith(told)


# Which runs


def test_all_methods_run_and_finished_ones_are_not_run_again(office, capsys):
    methods = ("symnets-wo-entropy", "source-only", "symnets")
    folder = office(methods=methods, max_steps=1)
    found = {p.parent.parent.name for p in folder.parents[1].rglob("result.json")}
    assert found == set(methods)
    written = (folder / "result.json").stat().st_mtime_ns
    capsys.readouterr()
    office(methods=methods[:1], max_steps=1)
    assert f"already finished, see {folder}" in capsys.readouterr().out
    assert (folder / "result.json").stat().st_mtime_ns == written
    line = fails(office, methods=methods[:1], max_steps=1, lr=0.02)
    assert f"{folder / 'result.json'} belongs to another run (lr 0.01 there, 0.02 here)" in line


def test_all_runs_every_task_whole_tables_first(tree, office, capsys):
    root = tree(domains=("amazon", "webcam", "dslr"), images=2, name="three")
    wanted = {"root": root, "tasks": ("all",), "seeds": (0, 1)}
    office(**wanted, method="source-only", max_steps=1)
    starts = [line for line in capsys.readouterr().out.splitlines() if line.endswith("1 steps")]
    tasks = ["A2W", "A2D", "W2A", "W2D", "D2A", "D2W"]
    expected = {f"office31 {task} source-only seed {seed}" for task in tasks for seed in (0, 1)}
    titles = [line.split(":")[0] for line in starts]
    assert set(titles) == expected
    assert len(titles) == 12
    assert [title[-1] for title in titles] == ["0"] * 6 + ["1"] * 6


@pytest.mark.parametrize("method", ["symnets", "symnets-v2", "source-only"])
def test_a_target_that_lacks_categories_is_trained_on_as_partial(
    office, root, tmp_path, capsys, method
):
    shutil.rmtree(root / "webcam/mouse")
    wanted = {"root": None, "source": root / "amazon", "target": root / "webcam"}
    wanted |= {"dataset": "folders", "tasks": ("all",), "method": method}
    with pytest.raises(SystemExit, match=r"missing in webcam: mouse.*\n.*add --partial"):
        office(**wanted)
    office(**wanted, partial=True)
    (folder,) = (p.parent for p in tmp_path.rglob("result.json"))
    found, saved = result(folder), features(folder)
    assert found.categories == ["bike", "mouse", "mug"]
    assert saved.logits.shape == (6, 3 if method == "source-only" else 6)
    predicted = saved.logits[:, -3:].argmax(1)
    assert found.accuracy == share(torch.tensor(predicted == [0, 0, 0, 2, 2, 2]))
    assert found.per_category["mouse"] is None
    assert found.per_category["mug"] == share(torch.tensor(predicted[3:] == 2))
    assert found.recipe.get("partial") == (None if method == "source-only" else True)
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
    found = result(folder)
    assert (found.dataset, found.images[:2]) == ("office31-partial", [9, 6])
    assert found.per_category["desk"] is None
    assert found.recipe.get("partial") == (None if method == "source-only" else False)
    assert not any(name.startswith("weight/") for name in found.epochs[-1])


def test_a_target_without_categories_is_predicted(office, root, tmp_path):
    target = tmp_path / "mine"
    target.mkdir()
    for i, image in enumerate(sorted((root / "webcam").rglob("*.jpg"))):
        image.rename(target / f"{i}.jpg")
    wanted = {"root": None, "source": root / "amazon", "target": target, "tasks": ("all",)}
    office(dataset="folders", **wanted)
    (folder,) = (p.parent for p in tmp_path.rglob("result.json"))
    with open(folder / "predictions.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    found, saved = result(folder), features(folder)
    shares = torch.tensor(saved.logits[:, 3:]).softmax(1)  # C_t's
    assert [row["path"] for row in rows] == sorted(str(p) for p in target.iterdir())
    for row, share in zip(rows, shares, strict=True):
        assert row["category"] == found.categories[int(share.argmax())]
        assert float(row["confidence"]) == pytest.approx(float(share.max()), abs=1e-4)
    assert (found.accuracy, found.confusion) == (None, None)
    assert found.final["target_accuracy/C_t"] is None
    assert found.final["source_accuracy/C_s"] is not None
    assert saved.label.tolist()[9:] == [-1] * 9


# What the numbers do not depend on


@pytest.mark.parametrize("partial", [False, True])
def test_training_is_bit_identical_when_target_labels_are_shuffled(office, monkeypatch, partial):
    folder = office(epochs=3, partial=partial)

    def shuffled(*args, **options):
        task = load_task(*args, **options)
        random.Random(0).shuffle(task.target.labels)
        return task

    monkeypatch.setattr(train_office.datasets, "load_task", shuffled)
    other = office(epochs=3, partial=partial, out="shuffled")
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
    """Return the list that each image's path is added to when it is decoded."""
    read, reads = images.load_image, []
    monkeypatch.setattr(images, "load_image", lambda path: reads.append(path) or read(path))
    return reads


def test_results_do_not_depend_on_the_cache(office, tree, capsys, monkeypatch):
    root = tree(images=5, size=(60, 44), name="wide")
    folder = office(root=root, epochs=3, cache="off", out="off")
    assert "images in memory" not in capsys.readouterr().out
    reads = count_reads(monkeypatch)
    for where in ("ram", "device"):
        other = office(root=root, epochs=3, cache=where, out=where)
        out = capsys.readouterr().out
        assert "images in memory: 159kB\n" in out  # 30 of 3 x 36 x 49 bytes
        assert out.index("images in memory") < out.index(" steps")
        assert len(reads) == len(set(reads)) == 30
        reads.clear()
        assert_same_run(folder, other)
    office(root=root, epochs=3, cache="ram", out="off")
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
    office(method="source-only")
    assert set(seen) == {("amazon", False), ("amazon", True), ("webcam", True)}


# Stopped runs


def interrupt():
    raise KeyboardInterrupt


def test_ctrl_c_names_the_checkpoint_and_resume_goes_on_bit_for_bit(
    office, stopped_at, capsys, monkeypatch
):
    recipe = {"epochs": 4, "backbone": "mobilenet_v3_small"}  # with dropout
    folder = office(**recipe)
    stopped_at(2, interrupt)
    with pytest.raises(SystemExit) as stop:
        office(**recipe, out="stopped")
    assert stop.value.code == 130
    other = folder.parents[4] / "stopped" / folder.relative_to(folder.parents[3])
    assert f"{other / 'checkpoint.pt'} holds epoch 2; continue with --resume" in (
        capsys.readouterr().out
    )
    monkeypatch.undo()
    assert "continue it with --resume" in fails(office, **recipe, out="stopped")
    office(**recipe, out="stopped", resume=True)
    assert "8 steps, 4 done" in capsys.readouterr().out
    assert_same_run(folder, other)
    assert result(other).seconds > 0


@pytest.mark.parametrize("method", ["symnets", "symnets-v2-balanced"])
@pytest.mark.filterwarnings("ignore:.*twice the 3 categories")
def test_the_weights_of_partial_adaptation_survive_a_resume(
    office, root, stopped_at, monkeypatch, method
):
    shutil.rmtree(root / "webcam/mouse")
    shares = (("bike", 0.4), ("mouse", 0.1), ("mug", 0.5))
    recipe = {"method": method, "partial": True, "prior": shares, "epochs": 4, "lr": 0.1}
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


def test_a_run_that_was_killed_before_its_result_only_writes_its_files(office, monkeypatch):
    folder = office()
    kept = {name: (folder / name).read_bytes() for name in ("features.npz", "model.pt")}
    expected = result(folder)
    for name in ("result.json", *kept):
        (folder / name).unlink()
    monkeypatch.delattr(Trainer, "epoch")
    office(resume=True)
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

    stopped_at(1, happen)
    assert "out of memory: try a smaller --batch-size" in fails(office, epochs=2)


def test_a_full_disk_leaves_the_last_good_checkpoint(office, stopped_at, monkeypatch):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    stopped_at(2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1])))
    try:
        line = fails(office, epochs=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        monkeypatch.undo()
    assert "cannot write" in line
    assert "the previous one is intact" in line
    folder = office(epochs=4, out="whole")
    path = folder.parents[4] / "runs" / folder.relative_to(folder.parents[3]) / "checkpoint.pt"
    assert str(path) in line
    assert [p.name for p in path.parent.glob(".*")] == []
    assert len(files.load(path)["history"]) == 2
    office(epochs=4, resume=True)
    assert_same_run(folder, path.parent)


def test_checkpoints_of_other_runs_are_refused_before_anything_is_trained(office, capsys):
    folder = office()
    (folder / "result.json").unlink()
    capsys.readouterr()
    methods = ("source-only", "symnets")  # the first could be trained
    line = fails(office, methods=methods, resume=True, lr=0.02)
    assert f"{folder / 'checkpoint.pt'} belongs to another run (lr 0.01 there, 0.02 here)" in line
    assert not (folder.parents[1] / "source-only").exists()
    (folder / "checkpoint.json").unlink()
    (folder / "checkpoint.pt").write_bytes(b"something else")
    assert f"cannot read {folder / 'checkpoint.pt'}" in fails(office, methods=methods, resume=True)
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
def test_what_does_not_fit_gets_one_line(changes, why, office):
    assert why in fails(office, **changes)


def test_the_command_line_is_carried_out(root, tmp_path, capsys):
    argv = f"--dataset office31 --root {root} --task A2W --device cpu --batch-size 4"
    with pytest.raises(SystemExit) as stop:
        train_office.main([*argv.split(), "--out", "/dev/null/x", "--weights", "none"])
    assert "/dev/null/x" in stop.value.code
    with pytest.raises(SystemExit) as stop:
        train_office.main([*argv.split(), "--check"])
    assert stop.value.code == 0
    assert "18 of 18 images can be read" in capsys.readouterr().out


def test_a_domain_that_is_not_there_gets_a_guide(office, tmp_path):
    with pytest.raises(SystemExit, match="dslr not found"):
        office(tasks=("A2D",))
    with pytest.raises(SystemExit) as stop:
        office(root=tmp_path / "nowhere")
    for words in ("nowhere is not a folder", "<category>", "Saenko", "train_digits.py"):
        assert words in stop.value.code


def test_bad_data_is_named(office, root, capsys):
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
