import sys
from pathlib import Path

import pytest
import torch
from private import register
from torch._subclasses.fake_tensor import FakeTensorMode

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


@pytest.fixture
def device():
    """A private-use device, on which tensors have no numbers."""
    with FakeTensorMode():
        yield torch.device(register(), 0)
