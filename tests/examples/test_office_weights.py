"""--weights takes files as people have them, says what it took, and names what it cannot take."""

import json
import struct
import warnings
from pathlib import Path

import pytest
import torch
import torchvision
from office.console import UserError
from office.models import backbones
from torch import nn

NAME = "shufflenet_v2_x0_5"


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


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        backbones.build_extractor(NAME, str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("keys", [["state_dict"], ["model"], ["ema", "weights"]])
def test_weights_inside_of_dictionaries(tmp_path, capsys, state, keys):
    content = state
    for key in reversed(keys):
        content = {key: content, "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(1)}}}}
    loads(tmp_path, content, state)
    place = "".join(f"[{key!r}]" for key in keys)
    assert capsys.readouterr().out == f"weights {tmp_path}/weights.pt: loaded from {place}\n"


@pytest.mark.parametrize(
    "prefix", ["module.", "backbone.", "_orig_mod.", "model.", "module._orig_mod.", "net.0."]
)
def test_keys_with_a_prefix(tmp_path, capsys, state, prefix):
    loads(tmp_path, prefixed(state, prefix), state)
    plain = prefix.replace("_orig_mod.", "")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (1 if plain else 0)
    assert all(line.endswith(f"loaded without the prefix {plain}") for line in lines)


def test_both_and_other_layers_beside_them(tmp_path, capsys, state):
    others = {"head.weight": torch.ones(3, 8), "head.bias": torch.ones(3)}
    loads(tmp_path, {"state_dict": prefixed(state, "backbone.") | others}, state)
    told = "from ['state_dict'] without the prefix backbone.; ignored: head.weight, head.bias"
    assert told in capsys.readouterr().out


def test_wrappers_in_the_middle_of_keys(tmp_path, capsys, state):
    wrapped = {key.replace("stage2.", "stage2._orig_mod."): v for key, v in state.items()}
    assert wrapped.keys() != state.keys()
    loads(tmp_path, wrapped, state)


def test_a_plain_file_is_taken_without_a_word(tmp_path, capsys, state):
    loads(tmp_path, state, state)
    assert capsys.readouterr().out == ""


def test_what_was_taken_is_said_once_for_many_runs(tmp_path, capsys, state):
    for _ in range(3):
        loads(tmp_path, {"model": state}, state)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_runs_own_model_and_checkpoint(tmp_path, capsys, state):
    own = {"extractor": prefixed(state, "backbone."), "classifier": {"weight": torch.ones(3, 8)}}
    loads(tmp_path, own, state)
    network = prefixed(state, "extractor.backbone.") | {"heads.task.weight": torch.ones(6, 8)}
    loads(tmp_path, {"trainer": {"network": network}}, state)


def test_two_that_fit_are_not_chosen_from(tmp_path, state):
    both = prefixed(state, "encoder_q.") | prefixed(state, "encoder_k.")
    torch.save({"state_dict": both}, tmp_path / "moco.pt")
    message = refusal(tmp_path / "moco.pt")
    assert "several weights" in message
    assert all(f"without the prefix encoder_{x}." in message for x in "qk")


def test_other_keys_are_listed(tmp_path, state):
    vectors = {f"layer{i}.w": torch.ones(2) for i in range(9)}
    torch.save({"epoch": 3, "encoder": vectors}, tmp_path / "other.pt")
    message = refusal(tmp_path / "other.pt")
    assert f"other.pt do not fit {NAME}" in message
    assert "epoch, encoder; in 'encoder' layer0.w, layer1.w, layer2.w, ... (9 in all)" in message
    torch.save({}, tmp_path / "empty.pt")
    assert "it is empty" in refusal(tmp_path / "empty.pt")
    part = prefixed(state, "module.")
    del part["module.conv1.0.weight"]
    torch.save({"model": part}, tmp_path / "part.pt")
    message = refusal(tmp_path / "part.pt")
    assert "1 keys missing, the first conv1.0.weight from ['model'] without the prefix" in message
    assert "in 'model' module." in message


class Lit:
    """Something that a framework pickles beside the weights."""


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_model_is_named_as_that(tmp_path, network, state, zipped):
    path = tmp_path / "whole.pt"
    for content in (network, {"model": network}, {"state_dict": state, "hparams": Lit()}):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        message = refusal(path)
        assert "whole model" in message
        assert ("ShuffleNetV2" in message) or ("Lit" in message)
        assert "torch.save(model.state_dict(), FILE)" in message


def test_files_of_other_kinds_are_named(tmp_path, network):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    kinds = {
        "a safetensors file": struct.pack("<Q", len(header)) + header + bytes(4),
        "a web page": b"\n<!DOCTYPE html><title>403</title>",
        "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "truncated": b"PK\x03\x04",
    }
    for kind, content in kinds.items():
        (tmp_path / "weights").write_bytes(content)
        assert kind in refusal(tmp_path / "weights")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch deprecates TorchScript
        torch.jit.save(torch.jit.script(nn.Linear(1, 1)), tmp_path / "weights")
    assert "a TorchScript archive" in refusal(tmp_path / "weights")
