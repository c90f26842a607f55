import pytest
import torch
from hypothesis import settings

# Time limits per example say more about the machine than about the code.
settings.register_profile("symloss", deadline=None)
settings.load_profile("symloss")


@pytest.fixture
def device():
    """A private-use device, on which tensors have no numbers; see tests/test_accelerator.py."""
    from accelerator import register
    from torch._subclasses.fake_tensor import FakeTensorMode

    name = register()
    with FakeTensorMode():
        yield torch.device(name, 0)
