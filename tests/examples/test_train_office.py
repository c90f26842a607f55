import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import train_office
from office import data, files, models, runs
from office.methods import METHODS
from office.training import EpochBatches, Trainer

from symloss import functional

pytestmark = pytest.mark.filterwarnings("ignore:.*published")

SMALL = "--backbone shufflenet_v2_x0_5 --weights none --workers 0 --batch-size 4 --device cpu"
FILES = ["checkpoint.pt", "features.npz", "log.jsonl", "model.pt", "result.json"]
# A process of its own has no monkeypatch: the same small images, and optionally another network.
DRIVER = """
import sys
import torch
from office import data, models
torch.set_num_threads(1)
data.RESIZE, data.CROP = 36, 32
if {plain}:
    def build_extractor(*args):
        net = torch.nn.Sequential()
        net.backbone = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 5, 3), torch.nn.GELU(), torch.nn.AdaptiveAvgPool2d(2),
            torch.nn.Flatten(), torch.nn.Linear(32, 16))
        net.num_features = 16
        return net
    models.build_extractor = build_extractor
import train_office
import signal
signal.signal(signal.SIGTERM, signal.default_int_handler)
train_office.main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    monkeypatch.setattr(data, "RESIZE", 36)
    monkeypatch.setattr(data, "CROP", 32)
    threads = torch.get_num_threads()
    # Two threads add in another order, so the runs that are compared have one each.
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def root(tree):
    return tree(images=3)


@pytest.fixture
def office(root, tmp_path):
    """Runs amazon -> webcam in this process; returns the run's folder."""

    def call(more="", out="runs", method="symnets", root=root):
        argv = f"--dataset office31 --root {root} --task A2W --seeds 0 --out {tmp_path / out} "
        train_office.main([*argv.split(), *SMALL.split(), "--method", method, *more.split()])
        return tmp_path / out / "office31" / "A2W" / method / "seed0"

    return call


def weights(folder):
    model = files.load(folder / "model.pt")
    return {
        f"{part}.{name}": tensor
        for part in ("extractor", "head")
        for name, tensor in model[part].items()
    }


def assert_same_weights(folder, other):
    left, right = weights(folder), weights(other)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def result(folder):
    return json.loads((folder / "result.json").read_text())


def features_of(folder):
    with np.load(folder / "features.npz") as file:
        return dict(file)


def fails(capsys, call, *args, **kwargs):
    """The one line that a call exits with."""
    with pytest.raises(SystemExit) as stop:
        call(*args, **kwargs)
    if isinstance(stop.value.code, str):
        lines = stop.value.code
    else:  # argparse prints its usage first
        assert stop.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()[-1]
    assert "\n" not in lines
    assert lines.startswith("train_office.py: error: ")
    return lines


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(name, tree):
    root = tree(images=4)
    argv = f"--dataset office31 --root {root} --method {name} --max-steps 12 {SMALL}"
    args = train_office.build_parser().parse_args(argv.split())
    args.backbone, args.batch_size = "resnet18", 12
    task = data.load_task("office31", root, "A2W")
    method = METHODS[name]
    cpu, target = torch.device("cpu"), task.target.paths
    trainer = Trainer(args, cpu, method, 3, task.source, target, seed=0, cache={})
    before = {k: v.clone() for k, v in trainer.network.named_parameters()}
    transform = data.eval_transform(36, 32)
    fixed = torch.stack([transform(data.load_image(path)) for path in task.source.paths])

    def error():
        logits = trainer.network(fixed)[0]["task"].head
        if "source-only" in name or name.startswith("domain-confusion"):
            return torch.nn.functional.cross_entropy(logits, trainer.labels).item()
        return functional.source_task(logits, trainer.labels).item()

    class Silent:
        def step(self):
            pass

        def losses(self, step, scalars):
            pass

    first = error()
    terms = [trainer.epoch(epoch, Silent()) for epoch in range(trainer.epochs)]
    assert error() < 0.95 * first
    assert {k for t in terms for k in t} == {
        term.__name__ for term in (*method.head, *method.extractor, *method.weighted)
    }
    assert all(np.isfinite([*t.values()]).all() for t in terms)
    for key, p in trainer.network.named_parameters():
        assert not torch.equal(p, before[key]), key


def test_all_methods_and_the_files_they_leave(office, tmp_path, root, capsys):
    office("--max-steps 2", method="all")
    for name, method in METHODS.items():
        folder = tmp_path / "runs" / "office31" / "A2W" / name / "seed0"
        assert [f for f in FILES if not (folder / f).is_file()] == []
        assert len([*folder.glob("events.out.tfevents.*")]) == 1
        found = result(folder)
        assert (found["task"], found["method"], found["seed"]) == ("A2W", name, 0)
        assert found["reported"] == method.reported
        assert found["accuracy"] == found["final"][method.reported]
        assert np.sum(found["confusion"]) == 9
        assert np.trace(found["confusion"]) / 9 * 100 == pytest.approx(found["accuracy"])
        assert np.mean([*found["per_category"].values()]) == pytest.approx(found["accuracy"])
        assert found["categories"] == ["bike", "mouse", "mug"]
        assert (found["final"]["source"] is None) == (not name.startswith("symnets"))
        assert found["processes"] == 1
        assert found["epochs"][-1]["target"] == found["final"]["target"]
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert log == found["epochs"]
        saved = features_of(folder)
        assert saved["features"].shape == (18, 1024)
        assert saved["features"].dtype == np.float16
        assert saved["domain"].tolist() == [0] * 9 + [1] * 9
        assert saved["label"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] * 2
    out = capsys.readouterr().out
    assert "C^s" in out
    assert "C^t" in out

    written = (folder / "result.json").stat().st_mtime_ns
    office("--max-steps 2", method="symnets")
    assert "finished before" in capsys.readouterr().out
    assert (folder / "result.json").stat().st_mtime_ns == written
    assert "lr 0.01 there, 0.02 here" in fails(capsys, office, "--max-steps 2 --lr 0.02")


def test_a_saved_model_gives_the_saved_features_and_accuracy(office, root):
    folder = office("--epochs 2 --bottleneck 8")
    extractor, head, meta = models.load_model(folder / "model.pt")
    task = data.load_task("office31", root, "A2W")
    transform = data.eval_transform(**meta["preprocessing"])
    with torch.inference_mode():
        images = [transform(data.load_image(path)) for path in task.target.paths]
        features = extractor(torch.stack(images))
    assert meta["preprocessing"] == {
        "resize": 36,
        "crop": 32,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    saved = features_of(folder)["features"][9:]
    torch.testing.assert_close(features, torch.from_numpy(saved).float(), atol=2e-3, rtol=2e-3)
    right = head.predict(features, meta["reported"]) == torch.tensor(task.target.labels)
    assert 100 * right.double().mean().item() == pytest.approx(result(folder)["accuracy"])
    assert meta["categories"] == task.categories


def test_all_runs_every_task(tree, tmp_path):
    root = tree(domains=("amazon", "webcam", "dslr"), images=2)
    argv = f"--dataset office31 --root {root} --out {tmp_path / 'runs'} --seeds 0 1 --max-steps 1"
    train_office.main([*argv.split(), *SMALL.split(), "--method", "source-only"])
    found = sorted(
        str(p.parent.relative_to(tmp_path / "runs" / "office31"))
        for p in tmp_path.rglob("result.json")
    )
    tasks = ["A2D", "A2W", "D2A", "D2W", "W2A", "W2D"]
    assert found == [f"{task}/source-only/seed{seed}" for task in tasks for seed in (0, 1)]


def test_a_target_without_categories_is_predicted(tree, tmp_path, root):
    target = tmp_path / "mine"
    target.mkdir()
    for i, image in enumerate(sorted((root / "webcam").rglob("*.jpg"))):
        image.rename(target / f"{i}.jpg")
    argv = f"--dataset folders --source {root / 'amazon'} --target {target} --seeds 0"
    train_office.main([*argv.split(), *SMALL.split(), *f"--epochs 2 --out {tmp_path}".split()])
    (folder,) = (p.parent for p in tmp_path.rglob("result.json"))
    with open(folder / "predictions.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert {row["path"] for row in rows} == {str(p) for p in target.iterdir()}
    assert {row["category"] for row in rows} <= {"bike", "mouse", "mug"}
    assert all(1 / 3 <= float(row["confidence"]) <= 1 for row in rows)
    found = result(folder)
    assert found["accuracy"] is None
    assert found["confusion"] is None
    assert features_of(folder)["label"].tolist()[9:] == [-1] * 9


def test_training_is_bit_identical_when_target_labels_are_shuffled(office, monkeypatch):
    folder = office("--epochs 3")
    load_task = data.load_task

    def shuffled(*args):
        task = load_task(*args)
        random.Random(0).shuffle(task.target.labels)
        return task

    monkeypatch.setattr(data, "load_task", shuffled)
    other = office("--epochs 3", out="shuffled")
    assert_same_weights(folder, other)
    labels = [features_of(f)["label"][9:].tolist() for f in (folder, other)]
    assert labels[0] != labels[1]


def test_training_is_bit_identical_when_the_targets_list_is_shuffled(office, tree):
    root = tree("list", name="lists", images=3)
    folder = office("--epochs 2", root=root)
    path = root / "list" / "webcamList.txt"
    images, labels = zip(*map(str.split, path.read_text().splitlines()), strict=True)
    path.write_text(
        "".join(f"{i} {k}\n" for i, k in zip(images, labels[1:] + labels[:1], strict=True))
    )
    assert_same_weights(folder, office("--epochs 2", out="shuffled", root=root))


@pytest.mark.parametrize("more", ["--precision bf16", "--no-channels-last"])
def test_other_precisions_and_layouts_train(more, office):
    assert all(
        np.isfinite(t) for t in result(office(f"--max-steps 2 {more}"))["epochs"][-1].values()
    )


def test_results_do_not_depend_on_the_cache(office, tree, capsys, monkeypatch):
    root = tree(images=5, size=(60, 44), name="wide")
    folder = office("--epochs 3 --cache off", out="off", root=root)
    assert "images in memory" not in capsys.readouterr().out
    read, reads = data.load_image, []
    monkeypatch.setattr(data, "load_image", lambda path: reads.append(path) or read(path))
    for where in ("ram", "device"):
        other = office(f"--epochs 3 --cache {where}", out=where, root=root)
        out = capsys.readouterr().out
        assert "images in memory: 159kB\n" in out  # 30 of 3 x 36 x 49 bytes
        assert out.index("images in memory") < out.index(" steps")
        assert len(reads) == len(set(reads)) == 30
        reads.clear()
        assert_same_weights(folder, other)
        assert result(folder)["epochs"] == result(other)["epochs"]
        assert (folder / "features.npz").read_bytes() == (other / "features.npz").read_bytes()
    office("--epochs 3 --cache ram", out="off", root=root)
    assert "finished before" in capsys.readouterr().out


def test_images_are_decoded_once_in_a_sweep(tree, tmp_path, monkeypatch):
    root = tree(domains=("amazon", "webcam", "dslr"), images=2)
    read, reads = data.load_image, []
    monkeypatch.setattr(data, "load_image", lambda path: reads.append(path) or read(path))
    argv = f"--dataset office31 --root {root} --out {tmp_path / 'runs'} --seeds 0 1 --max-steps 1"
    train_office.main([*argv.split(), *SMALL.split(), "--task", "A2W", "A2D"])
    assert sorted(reads) == sorted(root.rglob("*.jpg"))


def test_tensorboard_has_every_scalar_of_every_epoch(office):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = office("--epochs 2 --bottleneck 4")
    events = EventAccumulator(str(folder)).Reload()
    terms = {"source_task", "target_task", "domain_discrimination"}
    terms |= {"category_confusion", "domain_confusion", "symmetric_entropy"}
    wanted = {f"loss/{term}" for term in terms} | {"accuracy/source", "accuracy/target", "lambda"}
    assert set(events.Tags()["scalars"]) == wanted | {"lr/backbone", "lr/head"}
    rates = [[e.value for e in events.Scalars(f"lr/{part}")] for part in ("backbone", "head")]
    assert rates[1] == pytest.approx([10 * rate for rate in rates[0]])
    assert [e.step for e in events.Scalars("accuracy/target")] == [2, 4]


def test_source_only_never_forwards_a_target_image_in_training(office, monkeypatch):
    seen = []
    read = data.Images.__getitem__

    def spy(images, key):
        if key[1] is not None:  # not the centre, which the evaluation takes
            seen.append(images.paths[key[0]])
        return read(images, key)

    monkeypatch.setattr(data.Images, "__getitem__", spy)
    office("--epochs 2", method="source-only")
    assert seen
    assert not [path for path in seen if "webcam" in path.parts]
    office("--epochs 2", method="source-only-em")
    assert [path for path in seen if "webcam" in path.parts]


def test_an_epoch_is_one_pass_over_the_larger_domain():
    large, small = (EpochBatches(n, 4, seed=0, domain=i) for i, n in enumerate((22, 9)))
    large.steps = small.steps = 5
    epochs = []
    for epoch in (0, 1):
        large.epoch = small.epoch = epoch
        epochs.append([[*large], [*small]])
        a, b = ([[index for index, _ in batch] for batch in side] for side in epochs[-1])
        assert len(a) == len(b) == 5
        assert len(set(chain(*a))) == 20  # nothing twice; the incomplete batch is dropped
        assert len(set(chain(*b[:2]))) == len(set(chain(*b[2:4]))) == 8
        assert b[:2] != b[2:4]
        seeds = [seed for side in epochs[-1] for batch in side for _, seed in batch]
        assert len(set(seeds)) == len(seeds)
    assert epochs[0] != epochs[1]
    assert [[*large], [*small]] == epochs[1]


def test_ctrl_c_names_the_checkpoint_and_resume_goes_on_bit_for_bit(office, monkeypatch, capsys):
    more = "--epochs 4 --backbone mobilenet_v3_small"  # with dropout
    folder = office(more)
    epoch = Trainer.epoch

    def stopped(trainer, number, progress):
        if number == 2:
            raise KeyboardInterrupt
        return epoch(trainer, number, progress)

    monkeypatch.setattr(Trainer, "epoch", stopped)
    with pytest.raises(SystemExit) as stop:
        office(more, out="stopped")
    assert stop.value.code == 130
    other = folder.parents[4] / "stopped" / folder.relative_to(folder.parents[3])
    assert f"{other / 'checkpoint.pt'} holds epoch 2; go on with --resume" in (
        capsys.readouterr().out
    )
    monkeypatch.setattr(Trainer, "epoch", epoch)
    assert "--resume" in fails(capsys, office, more, out="stopped")
    office(f"{more} --resume", out="stopped")
    assert_same_weights(folder, other)
    assert result(folder)["epochs"] == result(other)["epochs"]
    assert (folder / "features.npz").read_bytes() == (other / "features.npz").read_bytes()


@pytest.fixture
def start():
    """Start a Python process of its own session; none outlives the test."""
    started = []

    def start(command, **environment):
        folders = Path(train_office.__file__).parents[:2]
        paths = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def test_killed_at_random_moments_it_ends_with_the_uninterrupted_weights(
    office, root, tmp_path, start
):
    folder = office("--epochs 12")
    out = tmp_path / "killed"
    other = out / folder.relative_to(tmp_path / "runs")
    argv = f"--dataset office31 --root {root} --task A2W --seeds 0 --epochs 12 --out {out}"
    # One worker per domain and no cache: the numbers must not depend on it.
    more = "--workers 1 --cache off"
    command = ["-c", DRIVER.format(plain=False), *argv.split(), *SMALL.split(), *more.split()]
    delay = random.Random(3)
    for how in (signal.SIGKILL, signal.SIGTERM, None):
        process = start([*command, "--resume"])
        written = other / "checkpoint.pt"
        before = written.stat().st_mtime_ns if written.exists() else None
        if how is not None:
            while process.poll() is None and not (
                written.exists() and written.stat().st_mtime_ns != before
            ):
                time.sleep(0.005)
            time.sleep(delay.random() / 5)
            # As a terminal or a scheduler does: the processes that read images get it too.
            os.killpg(process.pid, how)
        stdout, stderr = process.communicate(timeout=300)
        if how is None:
            assert process.returncode == 0, stderr
        else:
            assert not (other / "result.json").exists(), "the run ended before the signal"
            files.load(written)
        if how == signal.SIGTERM:
            assert f"{written} holds epoch" in stdout
            assert process.returncode == 130
            assert "Traceback" not in stderr
    assert_same_weights(folder, other)
    assert result(folder)["epochs"] == result(other)["epochs"]


@pytest.mark.parametrize("method", ["symnets", "domain-confusion-em"])
def test_two_processes_take_the_single_processs_steps(method, root, tmp_path, start):
    for name in ("webcam/bike/2.jpg", "webcam/mug/0.jpg"):
        (root / name).unlink()  # an odd number of images to share out
    argv = f"--dataset office31 --root {root} --task A2W --seeds 0 --max-steps 3"
    (tmp_path / "driver.py").write_text(DRIVER.format(plain=True))
    command = [str(tmp_path / "driver.py"), *argv.split(), *SMALL.split(), "--method", method]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    processes = [
        start([*command, "--out", str(tmp_path / "one")]),
        start([*torchrun, *command, "--out", str(tmp_path / "two")]),
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    one, two = (tmp_path / n / "office31" / "A2W" / method / "seed0" for n in ("one", "two"))
    assert (result(one)["processes"], result(two)["processes"]) == (1, 2)
    assert np.sum(result(two)["confusion"]) == 7
    # Momentum holds the sum of the gradients so far: both players' gradients are compared.
    steps = [files.load(folder / "checkpoint.pt")["trainer"]["step"] for folder in (one, two)]
    for player in ("extractor", "head"):
        left, right = (step[player]["state"] for step in steps)
        assert left.keys() == right.keys()
        for key in left:
            torch.testing.assert_close(left[key]["momentum_buffer"], right[key]["momentum_buffer"])
    left, right = weights(one), weights(two)
    for key in left:
        torch.testing.assert_close(left[key], right[key])
    features = [features_of(folder)["features"] for folder in (one, two)]
    np.testing.assert_allclose(*features, atol=2e-3)
    left, right = (
        {k: v for k, v in result(folder)["epochs"][-1].items() if v is not None}
        for folder in (one, two)
    )
    assert left == pytest.approx(right, rel=1e-4)


def test_a_full_disk_leaves_the_last_good_checkpoint(office, monkeypatch, capsys):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    epoch = Trainer.epoch

    def filling(trainer, number, progress):
        if number == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        return epoch(trainer, number, progress)

    monkeypatch.setattr(Trainer, "epoch", filling)
    try:
        line = fails(capsys, office, "--epochs 4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot write" in line
    assert "the one written before is whole" in line
    path = Path(line.split("cannot write ")[1].split(": ")[0])
    assert [p.name for p in path.parent.glob(".*")] == []
    assert len(files.load(path)["history"]) == 2
    monkeypatch.setattr(Trainer, "epoch", epoch)
    folder = office("--epochs 4 --resume")
    assert_same_weights(folder, office("--epochs 4", out="whole"))


def test_checkpoints_of_other_runs_are_refused(office, monkeypatch, capsys):
    monkeypatch.setattr(runs, "_write_result", lambda *args: None)
    folder = office("--epochs 2")
    checkpoint = folder / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    line = fails(capsys, office, "--epochs 2 --resume --lr 0.02")
    assert f"{checkpoint} is of another run: lr 0.01 there, 0.02 here" in line
    other = folder.parent.parent / "domain-confusion" / "seed0"
    other.mkdir(parents=True)
    (other / "checkpoint.pt").write_bytes(whole)
    line = fails(capsys, office, "--epochs 2 --resume", method="domain-confusion")
    assert "method symnets there, domain-confusion here" in line
    for content in (whole[: len(whole) // 2], b"", b"something else"):
        checkpoint.write_bytes(content)
        assert f"cannot read {checkpoint}" in fails(capsys, office, "--epochs 2 --resume")
    files.save(checkpoint, {"weight": torch.zeros(1)})
    line = fails(capsys, office, "--epochs 2 --resume")
    assert f"{checkpoint} was not written by train_office.py" in line


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("--precision fp16", "--precision fp16 needs a CUDA GPU"),
        ("--device nonsense", "--device nonsense is not a device of this machine"),
        ("--task A2A", "no task A2A"),
        ("--task A2X", "no task A2X"),
        ("--task A2D", "dslr not found"),
        ("--batch-size 10", "amazon has 9 images, fewer than one batch"),
        ("--epochs abc", "invalid int value: 'abc'"),
        ("--device meta", "--device meta is not a device of this machine"),
        ("--out /dev/null/x", "/dev/null/x"),
        ("--batch-size 0", "must be at least 1, got 0"),
        ("--epochs 2 --max-steps 2", "not allowed with"),
        ("--backbone squeezenet1_0", "squeezenet1_0 does not end in a linear layer"),
        ("--weights nowhere.pt", "no such file: nowhere.pt"),
        ("--source here", "--source and --target belong to --dataset folders"),
        ("--dataset folders", "--dataset folders needs --source DIR and --target DIR"),
        ("--dataset folders --source a --target b", "--root and --task belong to the benchmarks"),
        ("--lr 0", "must be above 0"),
        ("--workers -1", "must be at least 0"),
    ],
)
def test_bad_arguments_get_one_line(more, why, office, capsys):
    if more == "--task A2D":  # the message is a guide of several lines
        with pytest.raises(SystemExit, match=why):
            office(more)
    else:
        assert why in fails(capsys, office, more)


def test_a_wrong_root_says_what_the_tree_must_look_like(office, tmp_path):
    with pytest.raises(SystemExit) as stop:
        office(root=tmp_path / "nowhere")
    for words in ("nowhere is not a folder", "<category>", "Saenko", "train_digits.py"):
        assert words in stop.value.code


def test_bad_data_is_named(office, root, capsys):
    image = root / "webcam" / "mug" / "1.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:300])
    assert f"cannot read the image {image}" in fails(capsys, office, "--epochs 1", out="a")
    with pytest.raises(SystemExit) as stop:
        office("--check")
    assert stop.value.code == 1
    assert str(image) in capsys.readouterr().out
    image.write_bytes(whole)
    with pytest.raises(SystemExit) as stop:
        office("--check")
    assert stop.value.code == 0
    for i in range(3):
        (root / "amazon" / "mug" / f"{i}.jpg").unlink()
    assert "category mug of domain amazon has no images" in fails(capsys, office, "--epochs 1")


def test_help_tells_where_each_default_is_from(capsys):
    with pytest.raises(SystemExit):
        train_office.main(["--help"])
    out = " ".join(capsys.readouterr().out.split())
    for default in ("128 [paper]", "0.01 [paper]", "200 [script]", "0.0001 [script]"):
        assert default in out
