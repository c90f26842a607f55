"""Every recipe runs as it stands, from another folder, and what its page says of it holds."""

import importlib.util
import re
import runpy
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import symloss
from symloss import functional as L

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "examples" / "recipes"
NEEDS = {"with_timm": "timm", "with_lightning": "lightning", "with_accelerate": "accelerate"}
IN_PROCESS = sorted(p.stem for p in RECIPES.glob("*.py") if p.stem != "several_gpus")


@pytest.fixture
def recipe(tmp_path, monkeypatch, capfd):
    """Return a function that runs a recipe in an empty folder: its names, and what it prints."""
    monkeypatch.chdir(tmp_path)
    # Traced as for any backend, but without a C++ compiler.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))

    def run(name):
        if name in NEEDS:
            pytest.importorskip(NEEDS[name])
        with warnings.catch_warnings():
            if name in NEEDS:
                warnings.simplefilter("ignore")  # another package's
            names = runpy.run_path(str(RECIPES / f"{name}.py"), run_name="__main__")
        return names, capfd.readouterr().out

    return run


def accuracy(printed):
    return float(printed.split("accuracy:")[-1].split("%")[0])


def assert_each_player_has_its_own_gradient(backbone, head, batch, backward, lam):
    """Against two backwards over plain logits, each for one player."""
    x_s, y_s, x_t = batch
    v_s, v_t = head(backbone(x_s)), head(backbone(x_t))
    task = L.source_task(v_s, y_s) + L.target_task(v_s, y_s)
    confusion = L.domain_confusion(v_t) + L.symmetric_entropy(v_t)
    losses = {
        head: task + L.domain_discrimination(v_s, v_t),
        backbone: L.category_confusion(v_s, y_s) + lam * confusion,
    }
    expected = {
        module: torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
        for module, loss in losses.items()
    }
    for module in losses:
        module.zero_grad()
    backward()
    for module, gradients in expected.items():
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("name", IN_PROCESS)
def test_a_recipe_runs(name, recipe):
    _, printed = recipe(name)
    if "accuracy" in (RECIPES / f"{name}.py").read_text("utf-8"):
        assert accuracy(printed) > 95
    else:
        assert printed


@pytest.mark.parametrize("name", IN_PROCESS)
def test_a_recipe_is_shown_whole_on_one_page(name):
    shown = f"```{{literalinclude}} ../../examples/recipes/{name}.py\n:language: python\n```"
    pages = [p.read_text("utf-8") for p in (ROOT / "docs" / "recipes").glob("*.md")]
    assert sum(shown in page for page in pages) == 1


def test_a_loop_over_an_empty_loader_ends_with_words(recipe):
    names, _ = recipe("plain_loop")
    loader = torch.utils.data.DataLoader(range(10), batch_size=16, drop_last=True)
    with pytest.raises(ValueError, match="no batch: fewer than 16 samples, and drop_last=True"):
        next(names["forever"](loader))


def test_a_stopped_run_goes_on(recipe, monkeypatch):
    saved, progress = [], []
    save, schedule = torch.save, symloss.progressive_lambda

    def save_three(state, path):
        if len(saved) == 3:
            raise KeyboardInterrupt
        save(state, path)
        saved.append(state)

    def record(value):
        progress.append(value)
        return schedule(value)

    monkeypatch.setattr(torch, "save", save_three)
    with pytest.raises(KeyboardInterrupt):
        recipe("save_and_resume")
    monkeypatch.setattr(torch, "save", save)
    monkeypatch.setattr(symloss, "progressive_lambda", record)
    names, printed = recipe("save_and_resume")
    assert "resuming after 3 epochs" in printed
    assert progress[0] == 3 / 20
    assert len(progress) == names["total"] * 17 / 20
    assert names["head_optimizer"].param_groups[0]["lr"] == pytest.approx(0.01 / 11**0.75)


def test_a_checkpoint_holds_weights_and_momentum(recipe):
    first, _ = recipe("save_and_resume")
    again, _ = recipe("save_and_resume")  # nothing left to do
    for name in ("backbone", "head"):
        for a, b in zip(first[name].parameters(), again[name].parameters(), strict=True):
            assert torch.equal(a, b)
    momenta = [
        [s["momentum_buffer"] for s in names["extractor_optimizer"].state.values()]
        for names in (first, again)
    ]
    assert len(momenta[0]) == 2
    assert all(map(torch.equal, *momenta))


def test_an_exported_model_runs_without_symloss(recipe, tmp_path):
    recipe("deploy")
    code = (
        "import sys, torch; m = torch.export.load('model.pt2').module(); "
        "print(m(torch.zeros(7, 16)).shape, 'symloss' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "torch.Size([7, 3]) False\n", done.stderr


def test_the_health_check_names_what_is_lost_and_the_page_shows_it(recipe):
    names, printed = recipe("health_check")
    without, balanced = printed.split("balance 3.0:")
    assert accuracy(without) < 70 < accuracy(balanced)
    assert "(bike)" in without
    assert names["diagnosis"].rarely_predicted == []
    page = (ROOT / "docs" / "recipes" / "health-check.md").read_text("utf-8")
    shown = re.search(r"```text\n(.*?)```", page, re.DOTALL)[1]
    # Another processor may move a number, and with it the order of the categories.
    words = [re.sub(r"%: .*|[\d.]+", "", text).strip() for text in (shown, printed)]
    assert words[0] == words[1]


def test_the_balance_is_the_backbones_to_learn(recipe, monkeypatch):
    losses, balance, targets, balanced = symloss.symnet_losses, L.category_balance, [], []

    def record_target(source, labels, target):
        targets.append(target)
        return losses(source, labels, target)

    def record_balanced(logits):
        balanced.append(logits)
        return balance(logits)

    monkeypatch.setattr(symloss, "symnet_losses", record_target)
    monkeypatch.setattr(L, "category_balance", record_balanced)
    recipe("health_check")
    assert len(balanced) == 600
    assert all(v is target.extractor for v, target in zip(balanced, targets, strict=True))


def test_unlabelled_pixels_have_no_loss(recipe):
    names, _ = recipe("dense_prediction")
    logits = names["routed"](names["x_source"]).head
    loss = L.source_task(logits, names["y_source"], "none", ignore_index=255)
    assert (loss[:, :2] == 0).all()
    assert (loss[:, 2:] > 0).all()


def test_compiled_gradients(recipe):
    names, _ = recipe("torch_compile")
    batch = names["x_s"], names["y_s"], names["x_t"]
    lam = torch.tensor(0.3)
    assert_each_player_has_its_own_gradient(
        names["backbone"],
        names["head"],
        batch,
        lambda: names["objective"](*batch, lam).backward(),
        lam,
    )


def test_two_classifiers_copied_into_one_head_give_the_same(recipe):
    names, _ = recipe("two_classifiers")
    copied = symloss.SymmetricHead.from_classifiers(
        names["source_classifier"], names["target_classifier"]
    )
    features = names["backbone"](names["x_t"])
    torch.testing.assert_close(copied(features), names["head"](features))


def test_accelerate_clips_and_steps_whole_gradients(recipe, monkeypatch):
    accelerate = pytest.importorskip("accelerate")
    clip, whole = accelerate.Accelerator.clip_grad_norm_, []

    def record(self, *args):
        whole.append(self.sync_gradients)
        return clip(self, *args)

    monkeypatch.setattr(accelerate.Accelerator, "clip_grad_norm_", record)
    names, _ = recipe("with_accelerate")
    assert whole == [True] * (names["total"] // 2)
    rates = [group["lr"] for group in names["optimizer"].param_groups]
    assert rates == pytest.approx([0.001 / 11**0.75, 0.01 / 11**0.75])
    network, batch, lam = names["network"], (names["x_s"], names["y_s"], names["x_t"]), 0.3
    accelerator = names["accelerator"]

    def backward():
        source, target = names["model"](batch[0], batch[2])
        loss = symloss.symnet_losses(source, batch[1], target).total(lam)
        accelerator.backward(loss * accelerator.gradient_accumulation_steps)

    assert_each_player_has_its_own_gradient(network.backbone, network.head, batch, backward, lam)


def test_one_cycle_with_one_number_makes_the_rates_equal():
    groups = symloss.parameter_groups(nn.Linear(2, 2), nn.Linear(2, 2), lr=0.001)
    for max_lr, ratio in ((0.01, 1), ([0.001, 0.01], 10)):
        optimizer = torch.optim.SGD([dict(group) for group in groups], momentum=0.9)
        torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, total_steps=10)
        backbone, head = (group["lr"] for group in optimizer.param_groups)
        assert head == pytest.approx(ratio * backbone)


def test_lightning_resumes_where_lambda_was(recipe, monkeypatch):
    lightning = pytest.importorskip("lightning")
    progress, schedule = [], symloss.progressive_lambda

    def record(value):
        progress.append(float(value))
        return schedule(value)

    monkeypatch.setattr(symloss, "progressive_lambda", record)
    names, _ = recipe("with_lightning")
    assert progress == pytest.approx([i / 240 for i in range(240)])
    rates = [group["lr"] for group in names["trainer"].optimizers[0].param_groups]
    assert rates == pytest.approx([0.001 / 11**0.75, 0.01 / 11**0.75])
    progress.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(max_epochs=24, logger=False, enable_progress_bar=False)
        model = names["SymNet"](names["new_backbone"](), num_features=64, num_classes=3)
        trainer.fit(model, names["loaders"], ckpt_path="symnet.ckpt")
    assert progress == pytest.approx([i / 288 for i in range(240, 288)])


def test_processes_train_one_model(tmp_path):
    script = RECIPES / "several_gpus.py"
    text = script.read_text("utf-8") + (
        "torch.save(network.state_dict(), f'{os.environ[\"RANK\"]}.pt')\n"
    )
    (tmp_path / "recipe.py").write_text(text, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command = [*torchrun, "--standalone", "recipe.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert accuracy(done.stdout) > 95
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[k], second[k]) for k in first if "weight" in k or "bias" in k)


def test_the_several_gpus_recipe_is_shown():
    page = (ROOT / "docs" / "recipes" / "several-gpus.md").read_text("utf-8")
    assert "```{literalinclude} ../../examples/recipes/several_gpus.py" in page


def test_a_recipe_hides_no_package():
    """A script's folder comes first on the path: ``lightning.py`` would import itself."""
    for path in RECIPES.glob("*.py"):
        found = importlib.util.find_spec(path.stem)  # benchmarks/ may be on the path too
        assert found is None or ROOT in Path(found.origin).parents
        assert path.stem != "pytorch"  # torchvision tries to import it
