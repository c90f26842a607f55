import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from office import files
from office.console import UserError
from office.models import backbones

NETWORKS = [
    "resnet18",
    "mobilenet_v2",
    "densenet121",
    "swin_t",
    "shufflenet_v2_x0_5",
]


@pytest.mark.parametrize("name", NETWORKS)
def test_features_under_the_old_last_layer_give_the_networks_output(name, tmp_path):
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    extractor = backbones.build_extractor(name, str(tmp_path / "weights.pt")).eval()
    last = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        features = extractor(x)
        assert features.shape == (2, extractor.num_features)
        torch.testing.assert_close(last(features), network(x))


def test_a_bottleneck_follows_the_backbone():
    extractor = backbones.build_extractor("shufflenet_v2_x0_5", "none", bottleneck=16)
    assert extractor.num_features == 16
    assert extractor(torch.randn(2, 3, 32, 32)).shape == (2, 16)


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


def test_imagenet_weights_are_not_of_resnet50_v1():
    with pytest.raises(UserError, match=r"for resnet50, not for resnet50_v1.*--weights FILE"):
        backbones.build_extractor("resnet50_v1", "imagenet")


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
    found = backbones.build_extractor("resnet50_v1", str(path)).backbone.state_dict()
    left_out = {k for k in state if k not in found and not k.startswith("fc.")}
    assert not left_out
    for key, value in found.items():
        assert value.dtype == (torch.float32 if value.is_floating_point() else torch.int64), key
        assert torch.equal(value, state[key].to(value.dtype)), key


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("squeezenet1_0", "must end in a linear layer"),
        ("googlenet", "auxiliary outputs"),
        ("inception_v3", "auxiliary outputs"),
        ("resnet51", "unknown backbone"),
        ("fcn_resnet50", "unknown backbone"),
    ],
)
def test_other_networks_are_refused_by_name(name, why):
    with pytest.raises(UserError, match=f"{name}.*{why}|{why}.*{name}") as error:
        backbones.build_extractor(name, "none")
    assert "\n" not in str(error.value)


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
    with pytest.raises(UserError, match=r"96 keys unknown, the first layer1\.2\.conv1"):
        backbones.build_extractor("resnet18", str(path))
    torch.save({k: v for k, v in state.items() if k != "conv1.weight"}, path)
    with pytest.raises(UserError, match=r"1 keys missing, the first conv1\.weight"):
        backbones.build_extractor("resnet34", str(path))
    torch.save(state | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, path)
    with pytest.raises(UserError, match=r"\(64, 1, 7, 7\) in the file, \(64, 3, 7, 7\)"):
        backbones.build_extractor("resnet34", str(path))


@pytest.mark.parametrize("content", [b"", b"not a file of torch", b"PK\x03\x04 truncated"])
def test_files_that_are_no_tensors_are_named(content, tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*weights\.pt \(\d+ bytes\)"):
        backbones.build_extractor("resnet18", str(path))
    with pytest.raises(UserError, match="no such file"):
        backbones.build_extractor("resnet18", str(tmp_path / "none.pt"))


def test_files_that_would_run_code_are_refused(tmp_path):
    torch.save({"f": print}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="cannot read"):
        files.load(tmp_path / "weights.pt")


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
    with pytest.raises(UserError, match=r"resnet18-f37072fd\.pth.*no network.*--weights"):
        backbones.build_extractor("resnet18", "imagenet")
