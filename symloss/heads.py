r"""Heads with two classifiers side by side, and the routing of gradients through a head.

Eq. (11) has two players, head and extractor. The head learns from joint logits of detached
features, the extractor from joint logits of detached parameters. Both have the same values, so the
sum of their losses needs one backward pass and no gradient reversal.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

from symloss._checks import (
    SHARDED,
    check_features,
    check_floating,
    check_positive,
    is_sharded,
    rebuildable,
)
from symloss.functional import split_logits

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


@rebuildable
class RoutedLogits(NamedTuple):
    r"""The same joint logits twice, each with its own gradient path, as :func:`route` returns them.

    Attributes:
        head: Joint logits ``(N, 2K, ...)`` whose gradient reaches the head only.
        extractor: Joint logits ``(N, 2K, ...)`` whose gradient reaches the features only.

    Example:
        >>> features = torch.ones(1, 3, requires_grad=True)
        >>> routed = SymmetricHead(3, 2).route(features)
        >>> torch.equal(routed.head, routed.extractor)
        True
        >>> routed.head.sum().backward()
        >>> features.grad is None
        True
    """

    head: Tensor
    extractor: Tensor


def route(head: nn.Module, features: Tensor) -> RoutedLogits:
    r"""Run any head twice, so one backward serves both players of eq. (11).

    .. math::

        v_{head} = h_\theta(\mathrm{stopgrad}(f)), \qquad
        v_{extractor} = h_{\mathrm{stopgrad}(\theta)}(f)

    Compute the head's losses on the first and the extractor's on the second. Use this function for
    your own head (an MLP, one in ``DistributedDataParallel``, one with tied or frozen parameters);
    :meth:`SymmetricHead.route` does the same for one linear layer.

    Both passes start from the same buffers, and the second pass does not change them: batch norm
    counts each batch once, and spectral norm gives both passes the same weight. Dropout draws two
    masks. A head that is given to ``fully_shard`` stays gathered until its backward, as the root
    does. ``DataParallel`` is not supported. ``torch.compile(fullgraph=True)`` needs torch 2.5.

    Args:
        head: A module that maps features to joint logits ``(N, 2K, ...)``.
        features: The head's input, a tensor of any floating dtype.

    Returns:
        The joint logits of both passes, in the head's dtype.

    Raises:
        TypeError: If ``head`` is not a module or ``features`` is not a floating-point tensor.
        RuntimeError: If FSDP has sharded the head and this is called outside the forward of the
            module that ``fully_shard`` was given, or if FSDP cannot keep the head gathered.

    Example:
        >>> head = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 6))
        >>> route(head, torch.randn(4, 8)).extractor.shape
        torch.Size([4, 6])
    """
    if not isinstance(head, nn.Module):
        raise TypeError(f"head must be a torch.nn.Module, got {type(head).__name__}")
    check_floating(features)
    # No parameter gets a gradient in the extractor's pass, so there is nothing to synchronise.
    local = head.module if isinstance(head, DistributedDataParallel) else head
    _keep_gathered(local)
    before = {name: buffer.clone() for name, buffer in local.named_buffers()}
    try:
        with _uncached_autocast(features):
            for_head = head(features.detach())
            detached = {name: parameter.detach() for name, parameter in local.named_parameters()}
            return RoutedLogits(for_head, functional_call(local, detached | before, (features,)))
    except RuntimeError as error:
        if "mixed torch.Tensor and DTensor" in str(error):
            raise RuntimeError(SHARDED) from error
        raise


class _Head(nn.Module):
    """Base of both heads; a subclass provides the layer and its dimensions."""

    num_classes: int
    weight: Tensor
    bias: Any  # a parameter or None, as the layer declares it

    def forward(self, features: Tensor) -> Tensor:
        """Return the joint logits of features, ``(N, F)`` to ``(N, 2K)`` or with ``(H, W)``."""
        weight = self._weight_for(features)
        with _uncached_autocast(features):
            return self._layer(features, weight, self.bias)

    def route(self, features: Tensor) -> RoutedLogits:
        """Return the joint logits twice, routed as :func:`route` does.

        Args:
            features: Features ``(N, F)``, or ``(N, C, H, W)`` for the 2d head.

        Raises:
            TypeError: If ``features`` is not a floating-point tensor of the head's dtype (under
                autocast, of any floating dtype).
            ValueError: If its shape does not fit.
            RuntimeError: As :func:`route`.
        """
        if self._forward_pre_hooks or self._forward_hooks:  # a hook may compute the weight
            return route(self, features)
        weight, bias = self._weight_for(features), self.bias
        with _uncached_autocast(features):
            return RoutedLogits(
                head=self._layer(features.detach(), weight, bias),
                extractor=self._layer(
                    features, weight.detach(), None if bias is None else bias.detach()
                ),
            )

    @torch.no_grad()
    def predict(self, features: Tensor, classifier: str = "target") -> Tensor:
        """Return the category indices, int64, ``(N,)`` or ``(N, H, W)``, of one classifier.

        Args:
            features: Features ``(N, F)``, or ``(N, C, H, W)`` for the 2d head.
            classifier: ``"target"`` or ``"source"``.

        Raises:
            TypeError: As :meth:`route`.
            ValueError: If ``classifier`` is neither, or the shape of ``features`` does not fit.
        """
        half = _half(classifier)
        logits: Tensor = self(features)
        return split_logits(logits)[half].argmax(1)

    def _layer(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _weight_for(self, features: Tensor) -> Tensor:
        """Return the weight, read only once: a parametrization recomputes it on every access."""
        weight = self.weight
        check_features(features, weight)
        return weight

    def _fill_with_half(self, layer: Layer, classifier: str) -> Layer:
        half = _half(classifier)
        if is_sharded(self.weight):
            raise RuntimeError(
                "classifier must copy a whole weight, got a sharded one (a DTensor); call it after "
                "unshard() of the module that fully_shard was given, in every process"
            )
        layer.weight = nn.Parameter(self.weight.detach().chunk(2)[half].clone())
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.detach().chunk(2)[half].clone())
        return layer


class SymmetricHead(_Head, nn.Linear):
    r"""Source and target classifiers as one linear layer with 2K outputs (section 3.1).

    .. math:: v = W f + c, \qquad v = [v^s; v^t] \in \mathbb{R}^{2K}

    The first K outputs are the source classifier :math:`C^s`, the last K the target classifier
    :math:`C^t`; their joint softmax is :math:`C^{st}`. It is a :class:`torch.nn.Linear` with
    ``state_dict`` keys ``weight`` ``(2K, F)`` and ``bias`` ``(2K,)`` and torch's default init.

    Args:
        in_features: Size F of a feature, at least 1.
        num_classes: Number K of categories, at least 1.
        bias: Whether the layer adds a bias.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Shape:
        Features ``(N, F)`` in the parameters' dtype (or autocast's); joint logits ``(N, 2K)``.

    Raises:
        ValueError: If ``in_features`` or ``num_classes`` is below 1, or, when called, features do
            not have shape ``(N, F)``.

    Example:
        >>> head = SymmetricHead(2048, 31)
        >>> head(torch.randn(8, 2048)).shape
        torch.Size([8, 62])
        >>> head.predict(torch.randn(8, 2048)).shape
        torch.Size([8])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_positive(in_features=in_features, num_classes=num_classes)
        super().__init__(in_features, 2 * num_classes, bias=bias, device=device, dtype=dtype)
        self.num_classes = num_classes

    @classmethod
    def from_classifiers(cls, source: nn.Linear, target: nn.Linear) -> "SymmetricHead":
        r"""Make a head from copies of two trained classifiers.

        .. math:: W = [W^s; W^t], \qquad c = [c^s; c^t]

        Args:
            source: The source classifier, F to K.
            target: The target classifier, F to K, on the same device and of the same dtype.

        Returns:
            A head whose joint logits are the two classifiers' outputs side by side. It is
            trainable, even if the classifiers were frozen.

        Raises:
            TypeError: If an argument is not a :class:`torch.nn.Linear`.
            ValueError: If their shapes or dtypes differ, or only one has a bias.
            RuntimeError: If they are on different devices.

        Example:
            >>> source, target = nn.Linear(8, 3), nn.Linear(8, 3)
            >>> head = SymmetricHead.from_classifiers(source, target)
            >>> torch.equal(head.weight[3:], target.weight)
            True
        """
        for name, layer in (("source", source), ("target", target)):
            if not isinstance(layer, nn.Linear):
                raise TypeError(f"{name} must be a torch.nn.Linear, got {type(layer).__name__}")
        ours, theirs = (
            (tuple(layer.weight.shape), layer.bias is not None, layer.weight.dtype)
            for layer in (source, target)
        )
        if ours != theirs:
            raise ValueError(
                f"source and target must agree in (weight shape, bias, dtype), got {ours} and "
                f"{theirs}"
            )
        head = cls(source.in_features, source.out_features, source.bias is not None, "meta")
        head.weight = nn.Parameter(torch.cat([source.weight, target.weight]).detach())
        if source.bias is not None:
            head.bias = nn.Parameter(torch.cat([source.bias, target.bias]).detach())
        return head

    def classifier(self, name: str = "target") -> nn.Linear:
        r"""Return one classifier as a plain layer, to deploy without symloss.

        .. math:: v^t = W^t f + c^t

        Args:
            name: ``"target"`` or ``"source"``.

        Returns:
            A :class:`torch.nn.Linear`, F to K, with a copy of that classifier's parameters.

        Raises:
            ValueError: If ``name`` is neither.
            RuntimeError: If the weight is sharded.

        Example:
            >>> head, features = SymmetricHead(8, 3), torch.randn(5, 8)
            >>> classifier = head.classifier("target")
            >>> torch.equal(classifier(features).argmax(1), head.predict(features))
            True
        """
        bias = self.bias is not None
        layer = nn.Linear(self.in_features, self.num_classes, bias, device="meta")
        return self._fill_with_half(layer, name)

    def _layer(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(features, weight, bias)


class SymmetricHead2d(_Head, nn.Conv2d):
    r"""Source and target classifiers as one 1x1 convolution with 2K outputs, for dense prediction.

    .. math:: v_{hw} = W f_{hw} + c, \qquad v_{hw} = [v^s_{hw}; v^t_{hw}] \in \mathbb{R}^{2K}

    A :class:`torch.nn.Conv2d` with ``state_dict`` keys ``weight`` ``(2K, C, 1, 1)`` and ``bias``
    ``(2K,)`` and torch's default init: a :class:`SymmetricHead` at every pixel.

    Args:
        in_channels: Number C of feature channels, at least 1.
        num_classes: Number K of categories, at least 1.
        bias: Whether the layer adds a bias.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Shape:
        Features ``(N, C, H, W)`` in the parameters' dtype (or autocast's); joint logits
        ``(N, 2K, H, W)``.

    Raises:
        ValueError: If ``in_channels`` or ``num_classes`` is below 1, or, when called, features do
            not have shape ``(N, C, H, W)``.

    Example:
        >>> head = SymmetricHead2d(256, 19)
        >>> head(torch.randn(2, 256, 4, 8)).shape
        torch.Size([2, 38, 4, 8])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_positive(in_channels=in_channels, num_classes=num_classes)
        super().__init__(in_channels, 2 * num_classes, 1, bias=bias, device=device, dtype=dtype)
        self.num_classes = num_classes

    def classifier(self, name: str = "target") -> nn.Conv2d:
        r"""Return one classifier as a plain layer, to deploy without symloss.

        .. math:: v^t_{hw} = W^t f_{hw} + c^t

        Args:
            name: ``"target"`` or ``"source"``.

        Returns:
            A 1x1 :class:`torch.nn.Conv2d`, C to K, with a copy of that classifier's parameters.

        Raises:
            ValueError: If ``name`` is neither.
            RuntimeError: If the weight is sharded.

        Example:
            >>> SymmetricHead2d(16, 5).classifier("target")
            Conv2d(16, 5, kernel_size=(1, 1), stride=(1, 1))
        """
        bias = self.bias is not None
        layer = nn.Conv2d(self.in_channels, self.num_classes, 1, bias=bias, device="meta")
        return self._fill_with_half(layer, name)

    def _layer(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(features, weight, bias)


def _half(classifier: str) -> int:
    if classifier not in ("source", "target"):
        raise ValueError(f"classifier must be 'target' or 'source', got {classifier!r}")
    return ("source", "target").index(classifier)


def _keep_gathered(head: nn.Module) -> None:
    """Keep the head's FSDP shards gathered until the backward.

    Gathering them again for the second pass would silently replace the detached parameters, and the
    head would learn from the extractor's losses.
    """
    for module in head.modules():
        kinds = {kind.__name__ for kind in type(module).__mro__}  # importing FSDP takes long
        keep = getattr(module, "set_reshard_after_forward", None)
        if kinds & {"FSDPModule", "FullyShardedDataParallel"} and keep is None:
            raise RuntimeError(
                f"head must not be wrapped by FSDP on its own, got {type(module).__name__}, whose "
                "hooks overwrite the detached parameters; leave the head to the wrapper of the "
                "whole model, or use fully_shard of a newer torch"
            )
        if keep is not None and "ReplicateModule" not in kinds:  # which is whole at all times
            keep(False, recurse=False)


def _uncached_autocast(features: Tensor) -> AbstractContextManager[None]:
    """Keep autocast, but without casts cached by an earlier pass under no_grad (torch 2.4)."""
    device_type = features.device.type
    if not torch.is_autocast_enabled(device_type):
        return nullcontext()
    dtype = torch.get_autocast_dtype(device_type)
    return torch.autocast(device_type, dtype, cache_enabled=False)
