"""Every recipe runs as it stands, from another folder, and what its page says of it holds."""

import copy
import importlib.util
import io
import re
import runpy
import subprocess
import sys
import warnings
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import symloss
from symloss import functional as L

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "examples" / "recipes"
NEEDS = {
    "search": ["sklearn"],
    "with_sklearn": ["sklearn"],
    "with_timm": ["timm"],
    "with_lightning": ["lightning"],
    "with_accelerate": ["accelerate"],
    "with_transformers": ["accelerate", "peft", "transformers"],
}
ELSEWHERE = {"several_gpus", "dense_prediction", "signals"}  # the last two: test_experiments.py
IN_PROCESS = sorted(p.stem for p in RECIPES.glob("*.py") if p.stem not in ELSEWHERE)
SLOW = {"with_lightning", "with_transformers"}


@dataclass
class Finished:
    """A recipe's names, what it printed and where, and notes of its calls."""

    names: dict[str, Any]
    printed: str
    folder: Path
    noted: dict[str, list[Any]]


def noted_calls(name):
    """The calls of a recipe to take note of: owner, function, and what to keep of its arguments."""
    if name == "health_check":
        yield symloss, "symnet_losses", lambda source, labels, target: target
        yield L, "category_balance", lambda logits: logits
    if name == "with_lightning":
        yield symloss, "progressive_lambda", float
    if name == "with_accelerate":
        from accelerate import Accelerator

        yield Accelerator, "clip_grad_norm_", lambda accelerator, *_: accelerator.sync_gradients


def run(name, folder):
    """Run a recipe in a folder."""
    for package in NEEDS.get(name, []):
        pytest.importorskip(package)
    noted, printed = {}, io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(printed),
        warnings.catch_warnings(),
        configuration(),
    ):
        patch.chdir(folder)
        # Traced as for any backend, but without a C++ compiler.
        patch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
        patch.setattr("symloss.estimator._STEPS", 300)  # which is enough for toy data
        if name == "with_timm":
            import timm

            patch.setattr(timm, "create_model", partial(timm.create_model, depth=2))
        for owner, function, keep in noted_calls(name):
            note(patch, owner, function, keep, noted.setdefault(function, []))
        if name in NEEDS:
            warnings.simplefilter("ignore")  # another package's
        names = runpy.run_path(str(RECIPES / f"{name}.py"), run_name="__main__")
    return Finished(names, printed.getvalue(), folder, noted)


def configuration():
    """Restore scikit-learn's configuration afterwards, if scikit-learn is there."""
    try:
        from sklearn import config_context
    except ImportError:
        return nullcontext()
    return config_context()


def note(patch, owner, function, keep, notes):
    """Replace a function by itself, and keep something of the arguments of each call."""
    original = getattr(owner, function)

    def noting(*args, **kwargs):
        notes.append(keep(*args))
        return original(*args, **kwargs)

    patch.setattr(owner, function, noting)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A function that runs a recipe in an empty folder, each recipe once."""
    return cache(lambda name: run(name, tmp_path_factory.mktemp(name)))


def accuracy(printed):
    return float(printed.split("accuracy:")[-1].split("%")[0])


def gradients(players, v_s, y_s, v_t, lam):
    """What a plain loop gives extractor and head: two backwards over plain logits, one each."""
    task = L.source_task(v_s, y_s) + L.target_task(v_s, y_s)
    confusion = L.domain_confusion(v_t) + L.symmetric_entropy(v_t)
    losses = (
        L.category_confusion(v_s, y_s) + lam * confusion,
        task + L.domain_discrimination(v_s, v_t),
    )
    of_both = [
        torch.autograd.grad(loss, parameters, retain_graph=True)
        for loss, parameters in zip(losses, players, strict=True)
    ]
    return [gradient for one in of_both for gradient in one]


def largest_difference(ours, plain):
    return max(float((a - b).detach().abs().max()) for a, b in zip(ours, plain, strict=True))


def assert_each_player_has_its_own_gradient(backbone, head, batch, backward, lam):
    x_s, y_s, x_t = batch
    players = [list(module.parameters()) for module in (backbone, head)]
    expected = gradients(players, head(backbone(x_s)), y_s, head(backbone(x_t)), lam)
    parameters = [p for player in players for p in player]
    for parameter in parameters:
        parameter.grad = None
    backward()
    torch.testing.assert_close([p.grad for p in parameters], expected)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in IN_PROCESS],
)
def test_a_recipe_runs(name, recipe):
    printed = recipe(name).printed
    if "accuracy" in (RECIPES / f"{name}.py").read_text("utf-8"):
        assert accuracy(printed) > 95
    else:
        assert printed


@pytest.mark.parametrize("name", [*IN_PROCESS, "dense_prediction", "signals"])
def test_a_recipe_is_shown_whole_on_one_page(name):
    shown = f"```{{literalinclude}} ../../examples/recipes/{name}.py\n:language: python\n```"
    pages = [p.read_text("utf-8") for p in (ROOT / "docs" / "recipes").glob("*.md")]
    assert sum(shown in page for page in pages) == 1


def test_a_loop_over_an_empty_loader_ends_with_words(recipe):
    names = recipe("plain_loop").names
    loader = torch.utils.data.DataLoader(range(10), batch_size=16, drop_last=True)
    with pytest.raises(ValueError, match="no batch: fewer than 16 samples, and drop_last=True"):
        next(names["forever"](loader))


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    saved, progress = [], []
    save = torch.save

    def save_three(state, path):
        if len(saved) == 3:
            raise KeyboardInterrupt
        save(state, path)
        saved.append(state)

    monkeypatch.setattr(torch, "save", save_three)
    with pytest.raises(KeyboardInterrupt):
        run("save_and_resume", tmp_path)
    monkeypatch.setattr(torch, "save", save)
    note(monkeypatch, symloss, "progressive_lambda", float, progress)
    resumed = run("save_and_resume", tmp_path)
    assert "resuming after 3 epochs" in resumed.printed
    assert progress[0] == 3 / 20
    assert len(progress) == resumed.names["total"] * 17 / 20
    rate = resumed.names["head_optimizer"].param_groups[0]["lr"]
    assert rate == pytest.approx(0.01 / 11**0.75)


def test_a_checkpoint_holds_weights_and_momentum(recipe):
    first = recipe("save_and_resume")
    again = run("save_and_resume", first.folder)  # nothing left to do
    for name in ("backbone", "head"):
        pairs = zip(first.names[name].parameters(), again.names[name].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    momenta = [
        [s["momentum_buffer"] for s in finished.names["extractor_optimizer"].state.values()]
        for finished in (first, again)
    ]
    assert len(momenta[0]) == 2
    assert all(map(torch.equal, *momenta))


@pytest.mark.slow
def test_an_exported_model_runs_without_symloss(recipe):
    folder = recipe("deploy").folder
    code = (
        "import sys, torch; m = torch.export.load('model.pt2').module(); "
        "print(m(torch.zeros(7, 16)).shape, 'symloss' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert done.stdout == "torch.Size([7, 3]) False\n", done.stderr


def test_the_health_check_names_what_is_lost_and_the_page_shows_it(recipe):
    finished = recipe("health_check")
    without, balanced = finished.printed.split("balance 3.0:")
    assert accuracy(without) < 70 < accuracy(balanced)
    assert "(bike)" in without
    assert finished.names["diagnosis"].rarely_predicted == []
    page = (ROOT / "docs" / "recipes" / "health-check.md").read_text("utf-8")
    shown = re.search(r"```text\n(.*?)```", page, re.DOTALL)[1]
    # Another processor may move a number, and with it the order of the categories.
    words = [re.sub(r"%: .*|[\d.]+", "", text).strip() for text in (shown, finished.printed)]
    assert words[0] == words[1]


def test_a_pipeline_without_transform_input_warns_and_does_worse(recipe):
    finished = recipe("with_sklearn")
    sklearn = pytest.importorskip("sklearn")
    names, y = finished.names, finished.names["names"][finished.names["labels"]]
    pipeline = sklearn.clone(names["pipeline"]).set_params(transform_input=None)
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.warns(UserWarning, match="differ by more than a factor of 10 in standard deviation"),
    ):
        pipeline.fit(names["features"], y, target_features=names["target_features"])
    skipped = 100 * pipeline.score(names["target_features"], y)
    page = (ROOT / "docs" / "recipes" / "scikit-learn.md").read_text("utf-8")
    numbers = re.search(r"ends at ([\d.]+) % instead of ([\d.]+\d)", page).groups()
    assert skipped == pytest.approx(float(numbers[0]), abs=10)
    assert accuracy(finished.printed) == pytest.approx(float(numbers[1]), abs=2)


def test_the_search_is_shown_and_source_accuracy_does_not_tell(recipe):
    finished = recipe("search")
    page = (ROOT / "docs" / "recipes" / "scikit-learn.md").read_text("utf-8")
    shown = re.search(r"```text\n(.*?)```", page, re.DOTALL)[1]
    settings = [re.findall(r"\{.*\}", text) for text in (shown, finished.printed)]
    assert settings[0] == settings[1]
    runs = finished.names["runs"]
    assert finished.names["picked"] == max(runs)[2] <= finished.names["best"]
    assert min(finished.names["ties"]) < finished.names["picked"] - 5


def test_a_few_labels_help(recipe):
    without, with_labels = recipe("few_labels").printed.splitlines()
    assert float(re.search(r"([\d.]+) %", without)[1]) < 80 < accuracy(with_labels)


def test_the_balance_is_the_backbones_to_learn(recipe):
    noted = recipe("health_check").noted
    assert len(noted["category_balance"]) == 600
    pairs = zip(noted["category_balance"], noted["symnet_losses"], strict=True)
    assert all(balanced is target.extractor for balanced, target in pairs)


def test_compiled_gradients(recipe):
    names = recipe("torch_compile").names
    batch = names["x_s"], names["y_s"], names["x_t"]
    lam = torch.tensor(0.3)
    assert_each_player_has_its_own_gradient(
        names["backbone"],
        names["head"],
        batch,
        lambda: names["objective"](*batch, lam).backward(),
        lam,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch, about what it traces
def test_a_whole_step_trains_the_same_compiled_without_fullgraph(recipe):
    names = recipe("torch_compile").names
    x_s, y_s, x_t = (names[name] for name in ("x_s", "y_s", "x_t"))
    refused, compiled, eager = (copy.deepcopy((names["backbone"], names["head"])) for _ in range(3))

    def whole(backbone, head):
        step = symloss.TwoOptimizerStep(
            *(torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (backbone, head))
        )

        def train(lam):
            source, target = (head.route(backbone(x)) for x in (x_s, x_t))
            return step(symloss.symnet_losses(source, y_s, target).total(lam))

        return train

    lams = torch.tensor([0.1, 0.3, 0.5])
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(whole(*refused), backend="eager", fullgraph=True)(lams[0])
    torch._dynamo.reset()
    ours, plain = torch.compile(whole(*compiled), backend="eager"), whole(*eager)
    assert [ours(lam) for lam in lams] == [plain(lam) for lam in lams] == [True] * 3
    for part, same, before in zip(compiled, eager, refused, strict=True):
        torch.testing.assert_close(part.state_dict(), same.state_dict())
        assert not torch.allclose(next(part.parameters()), next(before.parameters()))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_reentrant_checkpoint_needs_an_input_that_requires_grad(
    recipe, use_reentrant, requires_grad
):
    names = recipe("torch_compile").names
    backbone, head = copy.deepcopy((names["backbone"], names["head"]))
    x_s, y_s, x_t = (names[name].clone() for name in ("x_s", "y_s", "x_t"))
    losses = []

    def backward():
        source, target = (
            head.route(
                checkpoint(backbone, x.requires_grad_(requires_grad), use_reentrant=use_reentrant)
            )
            for x in (x_s, x_t)
        )
        losses.append(symloss.symnet_losses(source, y_s, target).total(0.3))
        losses[0].backward()

    if use_reentrant and not requires_grad:
        backward()
        with pytest.warns(UserWarning, match="no parameter of the extractor got a gradient"):
            symloss.check_wiring(losses[0], backbone, head)
    else:
        assert_each_player_has_its_own_gradient(backbone, head, (x_s, y_s, x_t), backward, 0.3)
        symloss.check_wiring(losses[0], backbone, head)


def test_averaged_weights_predict(recipe):
    names = recipe("plain_loop").names
    network = nn.Module()
    network.backbone, network.head = copy.deepcopy((names["backbone"], names["head"]))
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.75)
    ema = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=average, use_buffers=True)
    ema.update_parameters(network)  # the first call copies
    before = network.head.weight.detach().clone()
    nn.init.zeros_(network.head.weight)
    ema.update_parameters(network)
    torch.testing.assert_close(ema.module.head.weight, 0.75 * before)
    predicted = ema.module.head.predict(ema.module.backbone(names["x_target"]))
    assert (predicted == names["labels"]).float().mean() > 0.9


def test_two_classifiers_copied_into_one_head_give_the_same(recipe):
    names = recipe("two_classifiers").names
    copied = symloss.SymmetricHead.from_classifiers(
        names["source_classifier"], names["target_classifier"]
    )
    features = names["backbone"](names["x_t"])
    torch.testing.assert_close(copied(features), names["head"](features))


def test_accelerate_clips_and_steps_whole_gradients(recipe):
    finished = recipe("with_accelerate")
    names = finished.names
    assert finished.noted["clip_grad_norm_"] == [True] * (names["total"] // 2)
    rates = [group["lr"] for group in names["optimizer"].param_groups]
    assert rates == pytest.approx([0.001 / 11**0.75, 0.01 / 11**0.75])
    network, batch, lam = names["network"], (names["x_s"], names["y_s"], names["x_t"]), 0.3
    accelerator = names["accelerator"]

    def backward():
        source, target = names["model"](batch[0], batch[2])
        loss = symloss.symnet_losses(source, batch[1], target).total(lam)
        accelerator.backward(loss * accelerator.gradient_accumulation_steps)

    assert_each_player_has_its_own_gradient(network.backbone, network.head, batch, backward, lam)


def timm_model():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    options = {"num_classes": 3, "img_size": 32, "depth": 3}
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, **options)
    for block in model.blocks:
        block.attn.fused_attn = False  # cannot be differentiated twice
    x_s, x_t = torch.randn(2, 6, 3, 32, 32)
    return model, x_s, torch.arange(6) % 3, x_t


def pooled(model, x):
    return model.forward_head(model.forward_features(x), pre_logits=True)


def test_a_head_inside_a_timm_model_keeps_its_groups_and_one_around_it_does_not():
    model, *_ = timm_model()
    optim = pytest.importorskip("timm.optim")

    def groups(model, **options):
        optimizer = optim.create_optimizer_v2(model, "adamw", weight_decay=0.05, **options)
        names = {p: n for n, p in model.named_parameters()}
        return {
            names[p]: (group.get("lr_scale"), group["weight_decay"])
            for group in optimizer.param_groups
            for p in group["params"]
        }

    decayed, plain = groups(model, layer_decay=0.5), groups(model)
    model.head = symloss.SymmetricHead(model.get_classifier().in_features, 3)
    assert groups(model, layer_decay=0.5) == decayed
    assert groups(model) == plain
    assert len({scale for scale, _ in decayed.values()}) == 5
    around = nn.ModuleDict({"backbone": model, "head": nn.Identity()})
    assert {scale for scale, _ in groups(around, layer_decay=0.5).values()} == {1.0}
    assert groups(around)["backbone.pos_embed"][1] == 0.05 != plain["pos_embed"][1]


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("second_order", [False, True])
def test_timms_scaler_gives_the_gradients_of_a_plain_loop(second_order):
    model, x_s, y_s, x_t = timm_model()
    utils, optim = pytest.importorskip("timm.utils"), pytest.importorskip("timm.optim")
    model.head = symloss.SymmetricHead(model.get_classifier().in_features, 3)
    head = list(model.head.parameters())
    backbone = [p for n, p in model.named_parameters() if not n.startswith("head.")]
    v_s, v_t = (model.head(pooled(model, x)) for x in (x_s, x_t))
    plain = gradients([backbone, head], v_s, y_s, v_t, 0.5)
    source, target = (model.head.route(pooled(model, x)) for x in (x_s, x_t))
    objective = symloss.symnet_losses(source, y_s, target).total(0.5)
    name = "adahessian" if second_order else "adamw"
    optimizer = optim.create_optimizer_v2(model, name, lr=0.0)
    scaler = utils.NativeScaler("cpu")
    clip = {"clip_grad": 1e6, "parameters": model.parameters()}  # which unscales
    if second_order:
        with pytest.raises(RuntimeError, match=r"differentiated only once; .* symloss.functional"):
            scaler(objective, optimizer, create_graph=True, **clip)
        optimizer.zero_grad()
        confusion = L.domain_confusion(target.extractor) + L.symmetric_entropy(target.extractor)
        objective = (
            L.source_task(source.head, y_s)
            + L.target_task(source.head, y_s)
            + L.domain_discrimination(source.head, target.head)
            + L.category_confusion(source.extractor, y_s)
            + 0.5 * confusion
        )
    scaler(objective, optimizer, create_graph=second_order, **clip)
    ours = [p.grad for p in (*backbone, *head)]
    assert largest_difference(ours, plain) < 1e-6
    if second_order:
        assert all(p.hess.abs().sum() > 0 for p in head)


def test_joint_logits_are_no_accuracy_for_timm():
    utils = pytest.importorskip("timm.utils")
    model, x, y, _ = timm_model()
    model.head = symloss.SymmetricHead(model.get_classifier().in_features, 3)
    with torch.no_grad():
        model.head.bias[3:] += 100.0  # every image is of the target
        y = model.eval().head.predict(pooled(model, x))
        [wrong] = utils.accuracy(model(x), y)
        model.head = model.head.classifier("target")
        [right] = utils.accuracy(model(x), y)
    assert (wrong, right) == (0.0, 100.0)


def test_the_timm_recipe_evaluates_the_target_classifier(recipe):
    names = recipe("with_timm").names
    model, evaluated = names["model"].eval(), names["evaluated"]
    with torch.no_grad():
        expected = L.split_logits(model.head(names["features"](names["x_t"])))[1]
        torch.testing.assert_close(evaluated(names["x_t"]), expected)


class Look:
    """Trains a model with the Trainer of the recipe, and looks at the gradients of its steps."""

    def __init__(self, names, model, folder, **options):
        from transformers import TrainerCallback, TrainingArguments

        batches, self.ours, self.plain = [], [], []

        class Noting(names["SymNetTrainer"]):
            def compute_loss(self, model, inputs, *args, **kwargs):
                batches.append(dict(inputs))
                return super().compute_loss(model, inputs, *args, **kwargs)

        class Before(TrainerCallback):
            def on_pre_optimizer_step(callback, arguments, state, control, model, **kwargs):  # noqa: N805
                players = [
                    [p for p in module.parameters() if p.requires_grad]
                    for module in (model.backbone, model.head)
                ]
                lam = symloss.progressive_lambda(state.global_step / state.max_steps)
                of_batches = [
                    gradients(
                        players,
                        model.head(model.features(batch["pixel_values"])),
                        batch["labels"],
                        model.head(model.features(batch["target_pixel_values"])),
                        lam,
                    )
                    for batch in batches
                ]
                self.ours.append([p.grad.clone() for player in players for p in player])
                self.plain.append([torch.stack(g).mean(0) for g in zip(*of_batches, strict=True)])
                batches.clear()

        arguments = TrainingArguments(
            str(folder),
            max_steps=3,
            learning_rate=1e-3,
            per_device_train_batch_size=6,
            max_grad_norm=0.0,
            label_names=["labels"],
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            **options,
        )
        trainer = Noting(model, arguments, train_dataset=names["Pairs"](), callbacks=[Before()])
        trainer.train()

    def largest_difference(self, times=1):
        assert len(self.ours) == 3
        assert all(float(g.abs().max()) > 0 for g in self.ours[-1])
        return max(
            largest_difference(ours, [times * g for g in plain])
            for ours, plain in zip(self.ours, self.plain, strict=True)
        )


def adapted(model, **options):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=4, **options))


LORA = {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["head"]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*pin_memory")
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("lora", [None, LORA, {"target_modules": "all-linear"}])
def test_the_trainer_gives_the_gradients_of_a_plain_loop(recipe, tmp_path, lora, accumulate):
    names = recipe("with_transformers").names
    model = names["new_model"]()
    if lora:
        model = adapted(model, **lora)
    look = Look(names, model, tmp_path, gradient_accumulation_steps=accumulate)
    assert look.largest_difference() < 1e-6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*pin_memory")
@pytest.mark.parametrize("said", [True, False])
def test_a_model_with_kwargs_must_say_that_its_loss_is_a_mean(recipe, tmp_path, monkeypatch, said):
    names = recipe("with_transformers").names

    class WithKwargs(names["SymNet"]):
        def forward(self, pixel_values, target_pixel_values=None, **kwargs):
            return super().forward(pixel_values, target_pixel_values)

    if not said:
        monkeypatch.delattr(names["SymNet"], "accepts_loss_kwargs")
    parts = names["new_model"]()
    model = WithKwargs(parts.backbone, parts.head)
    look = Look(names, model, tmp_path, gradient_accumulation_steps=3)
    assert look.largest_difference(times=1 if said else 3) < 1e-6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*pin_memory")
def test_a_head_that_lora_froze_is_told(recipe, tmp_path, monkeypatch):
    names = recipe("with_transformers").names
    monkeypatch.chdir(tmp_path)
    model = adapted(names["new_model"](), target_modules=["q_proj", "v_proj"])
    with pytest.warns(UserWarning, match=r"no parameter of the head .*modules_to_save=\[.head"):
        names["train"](model)


@pytest.mark.slow
def test_the_trainers_optimizer_lets_the_head_learn_ten_times_as_fast(recipe, tmp_path):
    names = recipe("with_transformers").names
    arguments = names["TrainingArguments"](str(tmp_path), learning_rate=0.02, use_cpu=True)
    model = names["new_model"]()
    groups = names["SymNetTrainer"](model, arguments).create_optimizer().param_groups
    assert [group["lr"] for group in groups] == [0.02, 0.2]
    assert [set(group["params"]) for group in groups] == [
        set(part.parameters()) for part in (model.backbone, model.head)
    ]


@pytest.mark.slow
def test_adapters_and_head_are_saved_together(recipe, tmp_path):
    from peft import PeftModel

    names = recipe("with_transformers").names
    base = names["new_model"]()
    model = adapted(copy.deepcopy(base), **LORA).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base, tmp_path).eval()
    x = names["x_target"][:5]
    torch.testing.assert_close(again(x)["logits"], model(x)["logits"])


def test_one_cycle_with_one_number_makes_the_rates_equal():
    groups = symloss.parameter_groups(nn.Linear(2, 2), nn.Linear(2, 2), lr=0.001)
    for max_lr, ratio in ((0.01, 1), ([0.001, 0.01], 10)):
        optimizer = torch.optim.SGD([dict(group) for group in groups], momentum=0.9)
        torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, total_steps=10)
        backbone, head = (group["lr"] for group in optimizer.param_groups)
        assert head == pytest.approx(ratio * backbone)


@pytest.mark.slow
def test_lightning_resumes_where_lambda_was(recipe, monkeypatch):
    lightning = pytest.importorskip("lightning")
    finished = recipe("with_lightning")
    names = finished.names
    progress = finished.noted["progressive_lambda"]
    assert progress == pytest.approx([i / 240 for i in range(240)])
    rates = [group["lr"] for group in names["trainer"].optimizers[0].param_groups]
    assert rates == pytest.approx([0.001 / 11**0.75, 0.01 / 11**0.75])

    progress = []
    note(monkeypatch, symloss, "progressive_lambda", float, progress)
    monkeypatch.chdir(finished.folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(max_epochs=24, logger=False, enable_progress_bar=False)
        model = names["SymNet"](names["new_backbone"](), num_features=64, num_classes=3)
        trainer.fit(model, names["loaders"], ckpt_path="symnet.ckpt")
    assert progress == pytest.approx([i / 288 for i in range(240, 288)])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # another package's; the one looked for is still seen
def test_lightning_tells_of_a_frozen_backbone(recipe, tmp_path, monkeypatch):
    lightning = pytest.importorskip("lightning")
    names = recipe("with_lightning").names
    monkeypatch.chdir(tmp_path)
    backbone = names["new_backbone"]().requires_grad_(False)
    trainer = lightning.Trainer(
        max_steps=2, logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    with pytest.warns(UserWarning, match="no parameter of the extractor got a gradient"):
        trainer.fit(names["SymNet"](backbone, num_features=64, num_classes=3), names["loaders"])


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """The parameters of both processes, without and with ``--fsdp``."""
    text = (RECIPES / "several_gpus.py").read_text("utf-8")
    text = text.replace(
        "dist.destroy_process_group()",
        "torch.save(dict(network.named_parameters()), f'{os.environ[\"RANK\"]}.pt')\n"
        "dist.destroy_process_group()",
    )
    trained = {}
    for option in ("", "--fsdp"):
        folder = tmp_path_factory.mktemp("processes")
        (folder / "recipe.py").write_text(text, encoding="utf-8")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
        command = [*torchrun, "--standalone", "recipe.py", *option.split()]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert accuracy(done.stdout) > 95
        trained[option] = [torch.load(folder / f"{r}.pt", weights_only=True) for r in (0, 1)]
    return trained


@pytest.mark.slow
@pytest.mark.parametrize("option", ["", "--fsdp"])
def test_processes_train_one_model(processes, option):
    first, second = processes[option]
    assert len(first) == 6
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.slow
def test_shards_train_the_model_that_copies_train(processes):
    torch.testing.assert_close(processes[""][0], processes["--fsdp"][0], rtol=0, atol=1e-4)


def test_the_several_gpus_recipe_is_shown():
    page = (ROOT / "docs" / "recipes" / "several-gpus.md").read_text("utf-8")
    assert "```{literalinclude} ../../examples/recipes/several_gpus.py" in page


def test_a_recipe_hides_no_package():
    """A script's folder comes first on the path: ``lightning.py`` would import itself."""
    for path in RECIPES.glob("*.py"):
        found = importlib.util.find_spec(path.stem)  # benchmarks/ may be on the path too
        assert found is None or ROOT in Path(found.origin).parents
        assert path.stem != "pytorch"  # torchvision tries to import it
