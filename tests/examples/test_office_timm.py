"""Networks of timm: features, weights, preprocessing and whole runs; nothing is downloaded."""

import sys
from pathlib import Path

import numpy as np
import predict
import pytest
import safetensors.torch
import timm
import torch
import train_office
from office.console import UserError
from office.data import images
from office.data.images import Preprocessing
from office.models import backbones, saved
from office.training.batches import ImageBatches, Images
from PIL import Image
from small_runs import assert_same_run, features, result

TINY = "timm:vit_tiny_patch16_224"


def fails(backbone, weights="none"):
    """The one line on why a network cannot be built."""
    with pytest.raises(UserError) as error:
        backbones.build_extractor(backbone, str(weights))
    assert "\n" not in str(error.value)
    return str(error.value)


# Features


@pytest.mark.parametrize(
    "name",
    ["test_vit", "test_resnet", "mobilenetv3_small_050"],  # the last's .num_features is too small
)
def test_features_under_the_classifier_give_the_networks_output(name, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    extractor = backbones.build_extractor(f"timm:{name}", str(tmp_path / "weights.pt")).eval()
    side = backbones.preprocessing(f"timm:{name}").crop
    x, last = torch.randn(2, 3, side, side), network.get_classifier()
    with torch.inference_mode():
        torch.testing.assert_close(last(extractor(x)), network(x))
    assert extractor.num_features == last.in_features


def test_networks_with_two_classifiers_lose_both(tmp_path):
    network = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    backbone = "timm:deit_tiny_distilled_patch16_224"
    extractor = backbones.build_extractor(backbone, str(tmp_path / "weights.pt")).eval()
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(extractor(x), network.forward_features(x)[:, :2].mean(1))
    assert extractor.num_features == 192


def test_a_network_comes_in_training_mode_and_with_its_bottleneck():
    extractor = backbones.build_extractor("timm:test_vit", "none", bottleneck=16)
    assert all(module.training for module in extractor.modules())
    assert extractor.num_features == 16
    assert extractor(torch.randn(2, 3, 160, 160)).shape == (2, 16)


def test_looking_at_the_width_changes_no_number():
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=0)
    after = torch.rand(())
    torch.manual_seed(0)
    state = backbones.build_extractor("timm:test_resnet", "none").backbone.state_dict()
    assert torch.rand(()) == after
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())


def test_networks_without_one_vector_for_an_image_are_refused(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, **k, global_pool=""))
    assert "timm:test_resnet must return one vector per image" in fails("timm:test_resnet")


# Preprocessing


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",  # bicubic, mean 0.5
        "resnet50.tv_in1k",  # bilinear
        "convnext_tiny.in12k_ft_in1k_384",  # squashed
        "vit_small_patch14_dinov2",  # no margin
    ],
)
def test_images_are_prepared_as_timm_does(name, tmp_path):
    rng = np.random.default_rng(0)
    size = (700, 560)
    pixels = Image.fromarray(rng.integers(0, 256, (56, 70, 3), dtype=np.uint8)).resize(size)
    pixels.save(tmp_path / "image.png")
    config = timm.data.resolve_model_data_config(timm.create_model(name))
    expected = timm.data.create_transform(**config, is_training=False)(pixels)
    preprocessing = backbones.preprocessing(f"timm:{name}")
    found = images.eval_transform(preprocessing)(pixels)
    torch.testing.assert_close(found, expected)
    crop, _, _ = Images([tmp_path / "image.png"], preprocessing, {})[0, None]
    assert torch.equal(images.Normalize(preprocessing)(crop), found)


def test_the_papers_network_wants_its_images_as_torchvisions_do():
    assert backbones.preprocessing("timm:resnet50.tv_in1k") == Preprocessing()
    assert backbones.preprocessing("resnet50") == Preprocessing()


def test_the_preprocessing_is_timms(monkeypatch):
    recipes = []
    monkeypatch.setattr(train_office, "run_all", lambda recipe, *_: recipes.append(recipe))
    line = ["--dataset", "office31", "--weights", "none", "--device", "cpu", "--backbone"]
    train_office.main([*line, TINY])
    half = (0.5, 0.5, 0.5)
    assert recipes[0].preprocessing == Preprocessing(248, 224, half, half, "bicubic")
    with pytest.raises(UserError, match="unknown backbone timm:vit_tiny_patch16_22:"):
        train_office.main([*line, "timm:vit_tiny_patch16_22"])


def test_other_shapes_of_images_are_refused():
    with pytest.raises(UserError, match=r"\(3, 546, 546\) with crop mode border"):
        backbones.preprocessing("timm:deepseek_vit_412m")


# Weights


def test_pretrained_weights_need_their_tag():
    told = fails("timm:resnet50", "imagenet")
    assert "give the full tag (timm has timm:" in told
    assert "timm:resnet50.a1_in1k, timm:resnet50.a1h_in1k" in told
    assert "timm has none" in fails("timm:ghostnet_050", "imagenet")


def test_a_tag_is_loaded_by_timm(monkeypatch):
    create, asked = timm.create_model, []

    def without_download(name, pretrained=False, **settings):
        asked.append((name, pretrained))
        return create(name, **settings)

    monkeypatch.setattr(timm, "create_model", without_download)
    backbones.build_extractor("timm:test_resnet.r160_in1k", "imagenet")
    backbones.build_extractor("timm:test_resnet.r160_in1k", "none")
    assert asked == [("test_resnet.r160_in1k", True), ("test_resnet.r160_in1k", False)]


def test_a_failed_download_says_what_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network\nat all")

    monkeypatch.setattr(timm, "create_model", offline)
    told = fails("timm:resnet18.tv_in1k", "imagenet")
    assert "cannot download the weights timm:resnet18.tv_in1k (OSError: no network at all)" in told
    assert "--weights FILE" in told


@pytest.mark.parametrize(
    ("backbone", "told"),
    [
        ("timm:resnet51", "timm has no such network"),
        ("timm:resnet50.tv", "unknown backbone timm:resnet50.tv:"),
        ("timm:", "unknown backbone timm:"),
    ],
)
def test_unknown_names_are_told_from_known_ones(backbone, told):
    assert told in fails(backbone)


def test_timm_need_not_be_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "needs timm: pip install timm" in fails(TINY)
    backbones.build_extractor("resnet18", "none")


@pytest.fixture
def state():
    torch.manual_seed(1)
    return timm.create_model("test_vit", num_classes=7).state_dict()


@pytest.mark.parametrize("kind", ["plain", "half", "inside", "safetensors", "no classifier"])
def test_files_load_as_timm_reads_them(state, tmp_path, kind):
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    content = {k: v.half() for k, v in state.items()} if kind == "half" else state
    if kind == "no classifier":
        content = {k: v for k, v in state.items() if not k.startswith("head.")}
    if kind == "inside":
        other = {k: torch.zeros_like(v) for k, v in state.items()}
        wrapped = {f"module.{k}": v for k, v in state.items()}
        content = {"state_dict": other, "state_dict_ema": wrapped}
    if kind == "safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    found = backbones.build_extractor("timm:test_vit", str(path)).backbone.state_dict()
    for key, value in found.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[key].half().float() if kind == "half" else state[key]), key


def test_position_embeddings_of_other_sizes_are_resampled_as_timm_does(tmp_path):
    torch.manual_seed(0)
    larger = timm.create_model("test_vit", img_size=224)
    torch.save(larger.state_dict(), tmp_path / "weights.pth")
    found = backbones.build_extractor("timm:test_vit", str(tmp_path / "weights.pth"))
    larger.set_input_size(img_size=160)
    torch.testing.assert_close(found.backbone.pos_embed, larger.pos_embed)


def test_weights_of_another_network_are_explained(state, tmp_path):
    path = tmp_path / "weights.pth"
    for content, told in (
        ({k: v for k, v in state.items() if k != "cls_token"}, "missing keys: 1 (first: cls_tok"),
        (state | {"blocks.9.x": torch.zeros(1)}, "unknown keys: 1 (first: blocks.9.x)"),
        (state | {"norm.weight": torch.zeros(3)}, "size mismatch for norm.weight"),
    ):
        torch.save(content, path)
        assert told in fails("timm:test_vit", path)
    path.write_bytes(b"nothing of the kind")
    assert f"the weights {path} do not fit timm:test_vit: " in fails("timm:test_vit", path)
    assert "no such file" in fails("timm:test_vit", tmp_path / "none.pth")


def test_without_a_tag_a_file_says_how_images_are_prepared(state, tmp_path, capsys):
    torch.save(state, tmp_path / "weights.pth")
    for name in ("test_vit.r160_in1k", "test_vit", "test_vit"):
        backbones.build_extractor(f"timm:{name}", str(tmp_path / "weights.pth"))
    (line,) = capsys.readouterr().out.splitlines()
    assert "images are preprocessed as for timm:test_vit.r160_in1k" in line


# Whole runs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*published")
def test_a_vision_transformer_trains_resumes_and_predicts(office, tree, monkeypatch, capsys):
    root, preprocessing = tree(name="small", images=2), backbones.preprocessing(TINY)
    settings = {"root": root, "backbone": TINY, "preprocessing": preprocessing, "batch_size": 6}
    whole = office("whole", **settings)

    epoch = ImageBatches.epoch

    def stopping(batches, number, steps):
        if number == 1:
            raise KeyboardInterrupt
        return epoch(batches, number, steps)

    monkeypatch.setattr(ImageBatches, "epoch", stopping)
    with pytest.raises(SystemExit, match="130"):
        office("stopped", **settings)
    monkeypatch.undo()
    assert_same_run(office("stopped", resume=True, **settings), whole)

    assert features(whole).features.shape == (12, 192)
    assert result(whole).versions["timm"] == timm.__version__
    assert saved.read_model(whole / "model.pt").preprocessing == preprocessing
    logits = torch.tensor(features(whole).logits[:, 3:])  # of C_t, on webcam
    capsys.readouterr()
    paths = sorted((root / "webcam").rglob("*.jpg"))
    predict.main([str(whole / "model.pt"), *map(str, paths)])
    for line, expected in zip(capsys.readouterr().out.splitlines(), logits, strict=True):
        path, category, confidence = line.split("\t")
        assert category == ["bike", "mouse", "mug"][expected.argmax()]
        assert float(confidence) == pytest.approx(expected.softmax(0).max().item(), abs=2e-3)
        assert Path(path) in paths
