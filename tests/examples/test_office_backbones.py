"""Networks of torchvision without their last layer, and weights from files as people have them."""

import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from office.console import UserError
from office.models import backbones
from torch import nn

NAME = "shufflenet_v2_x0_5"


def refusal(weights: Path | str, name: str = NAME) -> str:
    """The one line on why a network cannot be built."""
    with pytest.raises(UserError) as error:
        backbones.build_extractor(name, str(weights))
    assert "\n" not in str(error.value)
    return str(error.value)


# Networks


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "swin_t", NAME])
def test_features_under_the_old_last_layer_give_the_networks_output(name, tmp_path):
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    extractor = backbones.build_extractor(name, str(tmp_path / "weights.pt")).eval()
    last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        features = extractor(x)
        assert features.shape == (2, extractor.num_features)
        torch.testing.assert_close(last(features), network(x))


def test_a_bottleneck_follows_the_backbone():
    extractor = backbones.build_extractor(NAME, "none", bottleneck=16)
    assert extractor.num_features == 16
    assert extractor(torch.randn(2, 3, 32, 32)).shape == (2, 16)


def test_random_weights_are_drawn_in_order_under_the_names_that_saved_files_have():
    torch.manual_seed(0)
    backbone = torchvision.models.get_model(NAME, weights=None)
    linear = nn.Linear(1024, 16)
    torch.manual_seed(0)
    state = backbones.build_extractor(NAME, "none", bottleneck=16).state_dict()
    assert torch.equal(state["backbone.conv5.0.weight"], backbone.conv5[0].weight)
    assert torch.equal(state["bottleneck.0.weight"], linear.weight)
    assert torch.equal(state["bottleneck.0.bias"], linear.bias)
    assert state["bottleneck.1.running_mean"].shape == (16,)
    assert {key.partition(".")[0] for key in state} == {"backbone", "bottleneck"}


def test_for_frozen_features_the_backbone_is_omitted_and_its_weights_are_not_read():
    extractor = backbones.build_extractor("resnet50", "no such file", None, frozen=8)
    x = torch.randn(2, 8)
    assert extractor.num_features == 8
    assert torch.equal(extractor(x), x)
    assert not extractor.state_dict()


def strides(network):
    """Strides of the first block's three convolutions in each stage, in the order of data flow."""
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    return [[conv.stride for conv in (s[0].conv1, s[0].conv2, s[0].conv3)] for s in stages]


def test_resnet50_v1_halves_in_the_first_convolution_of_a_stage():
    one, two = (1, 1), (2, 2)
    v1 = backbones.build_extractor("resnet50_v1", "none").backbone
    assert strides(v1) == [[one] * 3] + [[two, one, one]] * 3
    assert strides(torchvision.models.resnet50()) == [[one] * 3] + [[one, two, one]] * 3


def test_resnet50_v1_takes_the_weights_of_resnet50_and_computes_something_else(tmp_path):
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "weights.pt")
    x, shapes = torch.randn(1, 3, 64, 64), []
    features = []
    for name in ("resnet50", "resnet50_v1"):
        extractor = backbones.build_extractor(name, str(tmp_path / "weights.pt")).eval()
        extractor.backbone.layer4.register_forward_hook(lambda *a: shapes.append(a[2].shape))
        with torch.inference_mode():
            features.append(extractor(x))
    assert extractor.num_features == 2048
    assert shapes == [(1, 2048, 2, 2)] * 2
    assert features[1].shape == (1, 2048)
    # A subsampled 1x1 convolution sees every second pixel: not a rounding.
    assert (features[0] - features[1]).norm() > 0.01 * features[0].norm()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("squeezenet1_0", "must end in a linear layer"),
        ("googlenet", "no other output"),
        ("inception_v3", "no other output"),
        ("resnet51", "unknown backbone"),
        ("fcn_resnet50", "unknown backbone"),
    ],
)
def test_other_networks_are_refused_by_name(name, why):
    message = refusal("none", name)
    assert name in message
    assert why in message


# Weights of ImageNet


@pytest.fixture
def hub(tmp_path):
    """Torchvision's download cache, empty."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    yield tmp_path / "checkpoints"
    torch.hub.set_dir(before)


def test_imagenet_weights_are_torchvisions_v1(hub):
    hub.mkdir()
    network = torchvision.models.resnet18()
    torch.save(network.state_dict(), hub / "resnet18-f37072fd.pth")
    extractor = backbones.build_extractor("resnet18", "imagenet")
    for name, p in extractor.backbone.named_parameters():
        assert torch.equal(p, network.get_parameter(name)), name


def test_a_failed_download_says_what_to_do(hub, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "urlopen", offline)
    message = refusal("imagenet", "resnet18")
    assert "resnet18-f37072fd.pth" in message
    assert "no network" in message
    assert "--weights FILE" in message


@pytest.mark.slow
def test_imagenet_weights_are_not_of_every_network():
    message = refusal("imagenet", "resnet50_v1")
    assert "no IMAGENET1K_V1 weights for resnet50_v1, only none" in message
    message = refusal("imagenet", "regnet_y_128gf")
    assert "no IMAGENET1K_V1 weights for regnet_y_128gf, only IMAGENET1K_SWAG_E2E_V1" in message


# Weights from files

REAL = Path(__file__).parents[2].parent / "shared/data/resnet50_imagenet.pt"


@pytest.mark.skipif(not REAL.exists(), reason="needs the weights of ../shared/data")
@pytest.mark.parametrize("classifier", ["with", "without"])
def test_published_weights_in_half_precision_load_strictly_as_float32(classifier, tmp_path):
    state = torch.load(REAL, weights_only=True)
    assert state["layer1.0.conv1.weight"].dtype == torch.float16
    path = REAL
    if classifier == "without":
        path = tmp_path / "weights.pt"
        torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, path)
    loaded = backbones.build_extractor("resnet50_v1", str(path)).backbone.state_dict()
    assert {k for k in state if not k.startswith("fc.")} <= loaded.keys()
    for key, value in loaded.items():
        assert value.dtype == (torch.float32 if value.is_floating_point() else torch.int64), key
        assert torch.equal(value, state[key].to(value.dtype)), key


def test_half_precision_weights_are_cast_and_another_number_of_classes_is_fine(tmp_path):
    state = torchvision.models.resnet18(num_classes=7).half().state_dict()
    torch.save(state, tmp_path / "weights.pt")
    extractor = backbones.build_extractor("resnet18", str(tmp_path / "weights.pt"))
    assert {p.dtype for p in extractor.parameters()} == {torch.float32}
    torch.testing.assert_close(extractor.backbone.conv1.weight, state["conv1.weight"].float())


def test_weights_of_another_network_are_explained(tmp_path):
    path = tmp_path / "weights.pt"
    state = torchvision.models.resnet34().state_dict()
    torch.save(state, path)
    assert "unknown keys: 96 (first: layer1.2.conv1" in refusal(path, "resnet18")
    torch.save({k: v for k, v in state.items() if k != "conv1.weight"}, path)
    assert "missing keys: 1 (first: conv1.weight)" in refusal(path, "resnet34")
    torch.save(state | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, path)
    assert "size mismatch for conv1.weight" in refusal(path, "resnet34")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(3)
    return torchvision.models.get_model(NAME, weights=None)


@pytest.fixture
def state(network) -> dict[str, torch.Tensor]:
    return network.state_dict()


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


def loads(tmp_path: Path, content: object, state: dict[str, torch.Tensor]) -> None:
    """Save a file and see that the backbone has the weights of ``state``."""
    torch.save(content, tmp_path / "weights.pt")
    backbone = backbones.build_extractor(NAME, str(tmp_path / "weights.pt")).backbone
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_a_plain_file_is_loaded_without_a_word(tmp_path, capsys, state):
    loads(tmp_path, state, state)
    without = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    loads(tmp_path, without, without | {k: torch.tensor(0) for k in state.keys() - without})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("keys", [["state_dict"], ["ema", "weights"]])
def test_weights_inside_dictionaries(tmp_path, capsys, state, keys):
    content = state
    for key in reversed(keys):
        content = {key: content, "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(1)}}}}
    loads(tmp_path, content, state)
    path, prefix = tmp_path / "weights.pt", "".join(f"{key}." for key in keys)
    assert capsys.readouterr().out == f"weights {path}: loaded without the prefix {prefix}\n"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "net.0."])
def test_keys_with_a_prefix(tmp_path, capsys, state, prefix):
    loads(tmp_path, prefixed(state, prefix), state)
    plain = prefix.replace("_orig_mod.", "")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (1 if plain else 0)
    assert all(line.endswith(f"loaded without the prefix {plain}") for line in lines)


def test_wrappers_in_the_middle_of_keys(tmp_path, state):
    wrapped = {key.replace("stage2.", "stage2._orig_mod."): v for key, v in state.items()}
    assert wrapped.keys() != state.keys()
    loads(tmp_path, wrapped, state)


def test_both_and_other_layers_beside_them(tmp_path, capsys, state):
    others = {"head.weight": torch.ones(3, 8), "head.bias": torch.ones(3)}
    loads(tmp_path, {"state_dict": prefixed(state, "backbone.") | others}, state)
    assert capsys.readouterr().out.endswith("without the prefix state_dict.backbone.\n")


def test_what_was_loaded_is_said_once_for_many_runs(tmp_path, capsys, state):
    for _ in range(3):
        loads(tmp_path, {"model": state}, state)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_runs_own_model_and_checkpoint(tmp_path, state):
    own = {"extractor": prefixed(state, "backbone."), "classifier": {"weight": torch.ones(3, 8)}}
    loads(tmp_path, own, state)
    network = prefixed(state, "extractor.backbone.") | {"heads.task.weight": torch.ones(6, 8)}
    loads(tmp_path, {"trainer": {"network": network}}, state)


def test_two_that_fit_are_not_chosen_from(tmp_path, state):
    # Batch norm's counters, which a file may lack, do not decide.
    without = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    both = prefixed(state, "encoder_q.") | prefixed(without, "encoder_k.")
    torch.save({"state_dict": both}, tmp_path / "moco.pt")
    message = refusal(tmp_path / "moco.pt")
    assert "several sets of weights" in message
    assert "state_dict.encoder_k. and state_dict.encoder_q.; save only one" in message


def test_a_file_without_the_networks_keys_is_refused(tmp_path, state):
    vectors = {f"layer{i}.w": torch.ones(2) for i in range(9)}
    torch.save({"epoch": 3, "encoder": vectors}, tmp_path / "other.pt")
    message = refusal(tmp_path / "other.pt")
    assert f"other.pt do not fit {NAME}: none of its keys ends in conv1.0.weight" in message
    torch.save({}, tmp_path / "empty.pt")
    assert "none of its keys" in refusal(tmp_path / "empty.pt")
    part = prefixed(state, "module.")
    del part["module.conv5.0.weight"]
    torch.save({"model": part}, tmp_path / "part.pt")
    message = refusal(tmp_path / "part.pt")
    assert "which have the prefix model.module.: missing keys: 1 (first: conv5.0" in message


class Lit:
    """Something that a framework pickles beside the weights."""


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_model_is_not_loaded(tmp_path, network, state, zipped):
    path = tmp_path / "whole.pt"
    for content in (network, {"model": network}, {"state_dict": state, "hparams": Lit()}):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        message = refusal(path)
        assert "not a pickled model" in message
        assert "torch.save(model.state_dict(), FILE)" in message


@pytest.mark.parametrize("content", [b"\n<!DOCTYPE html>", b"PK\x03\x04", b"\x89HDF\r\n", b""])
def test_files_of_other_kinds_are_refused(tmp_path, content):
    path = tmp_path / "weights"
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(
        f"cannot read {path} ({len(content)} bytes): it must be a complete file"
    )
    assert "no such file" in refusal(tmp_path / "none.pt")
