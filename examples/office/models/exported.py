"""A trained model as a file that runs without symloss: torch.export's .pt2, or ONNX."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from office.console import UserError
from office.results.outputs import Model

TOLERANCE = 1e-5  # of a probability, between the file and the model
BATCHES = (1, 3)  # batch sizes that both are tried with


class Classifier(nn.Module):
    """From prepared images ``(N, 3, S, S)`` to probabilities ``(N, K)``."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.extractor, self.classifier = model.extractor, model.classifier
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the probability of each category."""
        return self.classifier(self.extractor(images)).softmax(1)


def write(model: Model, path: Path) -> str:
    """Write a model to ``path``, test the file on images, and return a one-line report.

    It contains categories and preprocessing as JSON: in the extra file ``about.json`` of a .pt2,
    in the metadata ``about`` of ONNX. The batch size is free.

    Raises:
        UserError: If the suffix is another one, the network cannot be exported, a package is
            missing, or the file's answers differ from the model's by more than 1e-5.
    """
    network, side = Classifier(model).cpu(), model.preprocessing.crop
    about = json.dumps(
        {"categories": model.categories, "preprocessing": asdict(model.preprocessing)}
    )
    if path.suffix not in (".pt2", ".onnx"):
        raise UserError(f"--export needs a file that ends in .pt2 or .onnx, got {path}")
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(n, 3, side, side, generator=generator) for n in BATCHES]
    to_file, run = (_to_pt2, _run_pt2) if path.suffix == ".pt2" else (_to_onnx, _run_onnx)
    with torch.no_grad():
        to_file(network, inputs[-1], about, path)
        errors = [(run(path, x) - network(x)).abs().max().item() for x in inputs]
    if not max(errors) <= TOLERANCE:
        raise UserError(
            f"{path} is wrong: its probabilities differ from the model's by {max(errors):.1e}"
        )
    return f"{path}: {len(model.categories)} categories, within {max(errors):.0e} of the model"


def _to_pt2(network: nn.Module, images: Tensor, about: str, path: Path) -> None:
    batch = torch.export.Dim("batch")
    try:
        program = torch.export.export(network, (images,), dynamic_shapes={"images": {0: batch}})
    except Exception as error:
        raise UserError(f"cannot export the network: {str(error).splitlines()[0]}") from None
    torch.export.save(program, path, extra_files={"about.json": about})


def _run_pt2(path: Path, images: Tensor) -> Tensor:
    return torch.export.load(path).module()(images)


def _to_onnx(network: nn.Module, images: Tensor, about: str, path: Path) -> None:
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--export to ONNX needs pip install {error.name}") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.onnx.export(
        network,
        (images,),
        path,
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
    )
    written = onnx.load(path)
    onnx.helper.set_model_props(written, {"about": about})
    onnx.save(written, path)


def _run_onnx(path: Path, images: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
