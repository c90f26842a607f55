"""A device that torch takes for an accelerator, from torch 2.9 on; a plugin of pytest."""

import functools

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration as backends


class Backend(backends._DummyBackendModule):
    """What torch asks of the module of a device, also in tests that come later."""

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]


@functools.cache
def register():
    backends._setup_privateuseone_for_python_backend("npu", backend_module=Backend())
    return "npu"


def put(module, device):
    """A module whose parameters and buffers are made anew on the device."""
    for part in module.modules():
        for name, parameter in [*part.named_parameters(recurse=False)]:
            setattr(part, name, nn.Parameter(torch.empty(parameter.shape, device=device)))
        for name, buffer in [*part.named_buffers(recurse=False)]:
            setattr(part, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))
    return module


@pytest.fixture
def device():
    """The device itself, on which tensors have no numbers."""
    with FakeTensorMode():
        yield torch.device(register(), 0)
