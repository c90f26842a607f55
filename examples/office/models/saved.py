"""A trained model as a file: model.pt, and programs that run without symloss (.pt2, ONNX)."""

import importlib
import io
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from office import files
from office.console import UserError
from office.data.images import Preprocessing
from office.models.backbones import Extractor, build_extractor

TOLERANCE = 1e-5  # of a probability, between the program and the model
BATCHES = (1, 3)  # batch sizes that both are tried with


@dataclass(frozen=True)
class Model:
    """Everything a prediction needs; both modules are in evaluation mode when read."""

    backbone: str  # for backbones.build_extractor
    bottleneck: int | None  # size of the layer after it, if any
    extractor: Extractor  # from images to features
    classifier: nn.Linear  # from features to K logits
    categories: list[str]  # names of the K categories
    preprocessing: Preprocessing  # to the extractor's input, or to the backbone's
    frozen: int | None = None  # width of the backbone's features, if they are the input


def write_model(folder: Path, model: Model) -> None:
    """Write model.pt; :class:`UserError` if it cannot be written."""
    content = {
        **vars(model),
        "extractor": model.extractor.state_dict(),
        "classifier": model.classifier.state_dict(),
        "preprocessing": asdict(model.preprocessing),
    }
    files.save(folder / "model.pt", content)


def read_model(path: Path) -> Model:
    """Read a model.pt; :class:`UserError` if it cannot be read or contains something else."""
    content = files.load(path)
    try:
        backbone, bottleneck = content["backbone"], content["bottleneck"]
        categories, weight = content["categories"], content["classifier"]["weight"]
        frozen = content.get("frozen")  # older files lack it
        extractor = build_extractor(backbone, "none", bottleneck, frozen)
        classifier = nn.Linear(extractor.num_features, len(categories), dtype=weight.dtype)
        extractor.load_state_dict(content["extractor"])
        classifier.load_state_dict(content["classifier"])
        preprocessing = Preprocessing(**content["preprocessing"])
    except (LookupError, RuntimeError, TypeError, AttributeError):
        raise UserError(f"{path} is not a model.pt that train_office.py has written") from None
    parts = extractor.eval(), classifier.eval()
    return Model(backbone, bottleneck, *parts, categories, preprocessing, frozen)


class Predictor(nn.Module):
    """From prepared images ``(N, 3, S, S)`` to probabilities ``(N, K)``."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.extractor, self.classifier = model.extractor, model.classifier
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the probability of each category."""
        return cast(Tensor, self.classifier(self.extractor(images)).softmax(1))


def export(model: Model, path: Path) -> str:
    """Write a model as a program, after testing it on images, and return a one-line report.

    It contains categories and preprocessing as JSON: in the extra file ``about.json`` of a .pt2,
    in the metadata ``about`` of ONNX. The batch size is free.

    Raises:
        UserError: If that fails, or the program's probabilities differ from the model's by more
            than 1e-5. An earlier file is then untouched.
    """
    formats = {".pt2": (_to_pt2, _run_pt2), ".onnx": (_to_onnx, _run_onnx)}
    if path.suffix not in formats:
        raise UserError(f"--export needs a file that ends in .pt2 or .onnx, got {path}")
    convert, run = formats[path.suffix]
    files.check(path)
    network, side = Predictor(model).cpu(), model.preprocessing.crop
    about = {"categories": model.categories, "preprocessing": asdict(model.preprocessing)}
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(n, 3, side, side, generator=generator) for n in BATCHES]
    with torch.no_grad():
        program = convert(network, batches[-1], json.dumps(about))
        errors = [(run(program, x) - network(x)).abs().max() for x in batches]
    worst = torch.stack(errors).max().item()
    if not worst <= TOLERANCE:
        raise UserError(
            f"{path} is not written: its probabilities would differ from the model's by {worst:.1e}"
        )
    files.put(path, program)
    return f"{path}: {len(model.categories)} categories, within {worst:.0e} of the model"


def _to_pt2(network: nn.Module, images: Tensor, about: str) -> bytes:
    batch = torch.export.Dim("batch")
    try:
        program = torch.export.export(network, (images,), dynamic_shapes={"images": {0: batch}})
    except Exception as error:
        why = str(error).partition("\n")[0]
        raise UserError(f"cannot export the network: {why}") from None
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"about.json": about})
    return buffer.getvalue()


def _run_pt2(program: bytes, images: Tensor) -> Tensor:
    return cast(Tensor, torch.export.load(io.BytesIO(program)).module()(images))


def _to_onnx(network: nn.Module, images: Tensor, about: str) -> bytes:
    packages = ("onnx", "onnxruntime", "onnxscript")
    try:
        modules = [importlib.import_module(name) for name in packages]
    except ImportError:
        raise UserError(
            f"--export to ONNX needs more packages: pip install {' '.join(packages)}"
        ) from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        network,
        (images,),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
    )
    assert program is not None  # as it is without a file to write
    model = program.model_proto
    modules[0].helper.set_model_props(model, {"about": about})
    content: bytes = model.SerializeToString()
    return content


def _run_onnx(program: bytes, images: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
