"""SymNets for precomputed features, as a scikit-learn style classifier."""

import inspect
import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from symloss import _rows, _sklearn
from symloss._rows import Preprocessing, as_rows, gather, like, plain, shuffled
from symloss.diagnostics import Diagnosis, category_weights, diagnose
from symloss.functional import category_balance, split_logits
from symloss.heads import SymmetricHead
from symloss.objective import symnet_losses, symnet_v2_losses
from symloss.schedules import AnnealedLR, progressive_lambda
from symloss.training import TwoOptimizerStep

_OBJECTIVES: dict[str, Any] = {"symnets": symnet_losses, "symnets-v2": symnet_v2_losses}
_EPOCHS, _STEPS = 20, 1000  # at least, by default


class SymNetClassifier:
    r"""Classifier of features, adapted from a labelled domain to an unlabelled one.

    On fixed features of both domains it trains the extractor, here a bottleneck :math:`G`, and a
    :class:`SymmetricHead` with the two players' losses :math:`\mathcal{L}(\lambda)` of
    :func:`symnet_losses` or :func:`symnet_v2_losses`,

    .. math::

        G(x) = \mathrm{ReLU}(\mathrm{BN}(W x / \lVert x \rVert + c)), \qquad
        \min \; \mathcal{L}(\lambda) + \lambda \cdot \mathrm{balance} \cdot
        \mathrm{KL}(m \,\|\, \mathrm{prior})

    where the last term is :func:`symloss.functional.category_balance`. Predictions come from the
    target classifier :math:`C^t`.

    It follows scikit-learn's conventions, except that :meth:`fit` takes the target as a third
    argument. ``GridSearchCV`` would split the target by the source's folds, so search with a loop
    over ``ParameterGrid`` and compare label-free scores from :mod:`symloss.scores`. Tensors in,
    tensors out; anything else gives NumPy arrays. A memory map (``np.load(path, mmap_mode="r")``)
    is read in batches and never copied whole.

    Args:
        objective: ``"symnets-v2"`` or ``"symnets"``.
        balance: Weight of the category balance, at least 0. It assumes that the target has the
            shares in ``prior``; if unsure, use less.
        prior: Expected share of each category in the target, ``(K,)``, in the order of
            ``classes_``; equal shares if None.
        partial: Whether the target may lack categories of the source. Category weights, estimated
            every epoch (:func:`symloss.diagnostics.category_weights`), then replace ``balance``.
        preprocessing: ``"l2"`` scales each row to length 1, ``"standardise"`` each column to mean
            0 and variance 1 over both domains; None leaves features as they are.
        bottleneck: Width of the bottleneck.
        epochs: Passes over the larger domain; if None, 20, or enough to reach 1,000 steps.
        batch_size: Rows of each domain per step, at least 2; a smaller domain shrinks it and warns.
        lr: Initial learning rate, lowered by :class:`AnnealedLR`.
        weight_decay: Weight decay.
        device: Where to train and predict.
        random_state: Seed, at least 0; the same seed gives the same result on one machine. If
            None, it is drawn from torch's global generator, which is not used otherwise.
        verbose: Whether to show a progress bar, if tqdm is installed.

    Attributes:
        classes_: The K categories in order: a tensor if the labels were one, else an array.
        extractor_: Preprocessing and bottleneck, a module from ``(N, F)`` to ``(N, bottleneck)``.
        head_: The :class:`SymmetricHead`.
        history_: One dict per epoch with the mean of each loss.
        n_features_in_: Width F of the features.

    Example:
        >>> labels = torch.arange(600) % 3
        >>> features, shift = torch.eye(3)[labels], torch.tensor([0.3, 0.1, 0.0])
        >>> model = SymNetClassifier(random_state=0).fit(features, labels, features + shift)
        >>> model.predict(features[:4] + shift)
        tensor([0, 1, 2, 0])
    """

    def __init__(
        self,
        *,
        objective: str = "symnets-v2",
        balance: float = 1.0,
        prior: Any = None,
        partial: bool = False,
        preprocessing: str | None = "l2",
        bottleneck: int = 256,
        epochs: int | None = None,
        batch_size: int = 128,
        lr: float = 0.01,
        weight_decay: float = 1e-4,
        device: str | torch.device = "cpu",
        random_state: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.objective = objective
        self.balance = balance
        self.prior = prior
        self.partial = partial
        self.preprocessing = preprocessing
        self.bottleneck = bottleneck
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, features: Any, labels: Any, target_features: Any) -> "SymNetClassifier":
        """Train on labelled source features and unlabelled target features.

        Args:
            features: Source features, ``(N, F)``, at least 2 rows.
            labels: Source labels, ``(N,)``: whole numbers, strings or booleans.
            target_features: Target features, ``(M, F)``, at least 2 rows.

        Returns:
            The classifier itself.

        Raises:
            TypeError: If features are sparse, or a parameter has the wrong type.
            ValueError: If features are not finite, shapes or labels do not fit, there is only one
                category, or a parameter is out of range.
            FloatingPointError: If training diverged.
        """
        self._check_parameters()
        _rows.check_columns("target_features", target_features, _rows.columns(features))
        source, target = as_rows("features", features), as_rows("target_features", target_features)
        classes, y = _rows.encode(labels)
        _rows.check_pair(source, y, target)
        category_balance(torch.zeros(1, 2 * len(classes)), self.prior)  # checks the prior
        preprocessing = Preprocessing(self.preprocessing, source.shape[1]).to(self.device)
        preprocessing.fit(source, target)
        seed = int(torch.randint(2**31, ())) if self.random_state is None else self.random_state
        self._build(preprocessing, self.bottleneck, classes, seed)
        self._columns = _rows.columns(features)
        names, means = self._train(source, y, target, torch.Generator().manual_seed(seed))
        self.history_ = [dict(zip(names, epoch, strict=True)) for epoch in means.tolist()]
        if not means.isfinite().all():
            raise FloatingPointError(f"training diverged at lr={self.lr}: try a smaller one")
        return self

    def _train(
        self, rows_s: Tensor, y: Tensor, rows_t: Tensor, generator: torch.Generator
    ) -> tuple[list[str], Tensor]:
        """Return the names of the losses and their means, one row per epoch."""
        extractor, head, device = self.extractor_, self.head_, torch.device(self.device)
        size, per_epoch, total = self._length(len(rows_s), len(rows_t))
        sgd = partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=self.weight_decay)
        optimizers = [sgd(player.parameters(), lr=self.lr) for player in (extractor, head)]
        step = TwoOptimizerStep(*optimizers)
        prior = None if self.prior is None else torch.as_tensor(self.prior).to(device)
        schedules = [AnnealedLR(optimizer, total) for optimizer in optimizers]
        batches_s, batches_t = (shuffled(len(rows), size, generator) for rows in (rows_s, rows_t))
        balance = 0.0 if self.partial else self.balance
        weight, sums = None, []
        for i in self._steps(total):
            lam = progressive_lambda(i / total)
            if i % per_epoch == 0:
                sums.append(torch.zeros((), device=device))
                if self.partial:
                    logits = split_logits(self._apply(head, rows_t))[1]
                    weight = category_weights(logits, lam).to(device)
                extractor.train()
            index = next(batches_s)
            x_s, y_s = gather(rows_s, index, device), y[index].to(device)
            x_t = gather(rows_t, next(batches_t), device)
            source, target = head.route(extractor(x_s)), head.route(extractor(x_t))
            losses = _OBJECTIVES[self.objective](source, y_s, target, weight=weight)
            imbalance = category_balance(target.extractor, prior)
            step(losses.total(lam) + lam * balance * imbalance)
            for schedule in schedules:
                schedule.step()
            sums[-1] = sums[-1] + torch.stack([*losses, imbalance]).detach()

        return [*losses._fields, "category_balance"], torch.stack(sums) / per_epoch

    def predict(self, features: Any) -> Any:
        """Return each row's category, one of ``classes_``, ``(N,)``."""
        index = self._read("features", features, lambda f: self.head_.predict(f))
        return _rows.named(features, self.classes_, index)

    def predict_proba(self, features: Any) -> Any:
        """Return the target classifier's probabilities, ``(N, K)``, ordered as ``classes_``."""
        return like(features, self._read("features", features, self._probabilities))

    def transform(self, features: Any) -> Any:
        """Return the bottleneck's features, ``(N, bottleneck)``, float32."""
        return like(features, self._read("features", features, lambda f: f))

    def score(self, features: Any, labels: Any) -> float:
        """Return the accuracy, in [0, 1], on rows whose labels are known."""
        predicted, known = plain(self.predict(features)), plain(labels)
        right: list[bool] = [a == b for a, b in zip(predicted, known, strict=True)]
        return sum(right) / len(right)

    def diagnose(self, target_features: Any) -> Diagnosis:
        """Report, without labels, whether all categories are predicted in the target.

        Args:
            target_features: Target features, ``(M, F)``.

        Returns:
            How often each category is predicted and expected, and how often both classifiers
            agree; ``print`` it. A UserWarning says what matters most if it is not ``healthy``.
        """
        logits = self._read("target_features", target_features, lambda f: self.head_(f))
        source, target = split_logits(logits)
        found = diagnose(target, plain(self.classes_), self.prior, other_logits=source)
        if not found.healthy:
            remedy = None if self.partial else "a larger balance, or partial=True"
            warnings.warn(found.sentence(remedy), stacklevel=2)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return parameters and learnt attributes as tensors, lists, strings and numbers.

        Example:
            >>> import io
            >>> x, labels, file = torch.randn(200, 4), torch.arange(200) % 2, io.BytesIO()
            >>> model = SymNetClassifier(epochs=1).fit(x, labels, x)
            >>> torch.save(model.state_dict(), file)
            >>> state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
            >>> same = SymNetClassifier().load_state_dict(state)
            >>> torch.equal(same.predict(x), model.predict(x))
            True
        """
        _sklearn.check_fitted(self)
        return {
            "params": {name: plain(value) for name, value in self.get_params().items()},
            "classes": self.classes_ if isinstance(self.classes_, Tensor) else plain(self.classes_),
            "preprocessing": self.extractor_[0].kind,
            "extractor": self.extractor_.state_dict(),
            "head": self.head_.state_dict(),
            "history": self.history_,
        }

    def load_state_dict(self, state: dict[str, Any]) -> "SymNetClassifier":
        """Load parameters, except the device, and learnt attributes; return itself.

        Args:
            state: What :meth:`state_dict` returned.
        """
        self.set_params(**state["params"] | {"device": self.device})
        classes, (bottleneck, width) = state["classes"], state["extractor"]["1.weight"].shape
        classes = classes if isinstance(classes, Tensor) else _rows.as_array(classes)
        self._build(Preprocessing(state["preprocessing"], width), bottleneck, classes, seed=0)
        self.extractor_.load_state_dict(state["extractor"])
        self.head_.load_state_dict(state["head"])
        self.history_, self._columns = state["history"], None
        return self

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments by name; ``deep`` is for scikit-learn only."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> "SymNetClassifier":
        """Set the constructor's arguments by name; return itself.

        Raises:
            ValueError: If a name is unknown.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"Invalid parameter {name!r}: must be one of {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """Return the constructor call, without arguments that have their default."""
        return _sklearn.described(self)

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's estimator tags; only scikit-learn calls it."""
        return _sklearn.tags()

    def _check_parameters(self) -> None:
        choices = {"objective": [*_OBJECTIVES], "preprocessing": _rows.PREPROCESSING}
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                told = ", ".join(map(repr, known))
                raise ValueError(f"{name} must be one of {told}, got {value!r}")
        for name in ("balance", "weight_decay", "lr"):
            value, above = getattr(self, name), name == "lr"
            if not 0 <= value < math.inf or (above and value == 0):
                bound = "above" if above else "at least"
                raise ValueError(f"{name} must be finite and {bound} 0, got {value}")
        for name, least in (("bottleneck", 1), ("batch_size", 2), ("epochs", 1)):
            value = getattr(self, name)
            if value is not None and (value < least or value % 1):
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value}")

    def _length(self, *rows: int) -> tuple[int, int, int]:
        """Return the rows per batch, the steps per epoch, and the total steps."""
        size = min(self.batch_size, *rows)
        if size < self.batch_size:
            warnings.warn(
                f"batch_size={self.batch_size} exceeds the smaller domain; using {size}",
                stacklevel=4,
            )
        per_epoch = max(rows) // size
        epochs = self.epochs or max(_EPOCHS, math.ceil(_STEPS / per_epoch))
        return size, per_epoch, epochs * per_epoch

    def _build(
        self, preprocessing: Preprocessing, bottleneck: int, classes: Any, seed: int
    ) -> None:
        self.classes_, self.n_features_in_ = classes, len(preprocessing.mean)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU's only: it alone is forked
            layers = [nn.Linear(self.n_features_in_, bottleneck), nn.BatchNorm1d(bottleneck)]
            head = SymmetricHead(bottleneck, len(classes))
        self.extractor_ = nn.Sequential(preprocessing, *layers, nn.ReLU()).to(self.device)
        self.head_ = head.to(self.device)

    def _steps(self, total: int) -> Iterable[int]:
        if self.verbose:
            with suppress(ImportError):
                from tqdm.auto import tqdm

                bar: Iterable[int] = tqdm(range(total), desc=type(self).__name__, unit="step")
                return bar
        return range(total)

    def _read(self, name: str, features: Any, call: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply ``call`` to the bottleneck's features of a user's rows; return it on the CPU."""
        _sklearn.check_fitted(self)
        _rows.check_columns(name, features, self._columns)
        rows = as_rows(name, features)
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {rows.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        return self._apply(call, rows, name)

    def _probabilities(self, bottleneck: Tensor) -> Tensor:
        return split_logits(self.head_(bottleneck))[1].softmax(1)

    @torch.no_grad()
    def _apply(
        self, call: Callable[[Tensor], Tensor], rows: Tensor, name: str | None = None
    ) -> Tensor:
        extractor, device = self.extractor_.eval(), self.head_.weight.device
        return _rows.apply(lambda x: call(extractor(x)), rows, device, name)
