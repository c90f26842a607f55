"""SymNets for precomputed features, as a scikit-learn style classifier."""

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from symloss import _adapt, _labels, _rows, _sklearn
from symloss._checks import checked_device
from symloss._novelty import Novelty
from symloss._rows import Preprocessing, as_rows, like, own_modes, plain
from symloss.diagnostics import Diagnosis, diagnose
from symloss.functional import category_balance, split_logits
from symloss.objective import symnet_losses, symnet_v2_losses
from symloss.prior import Shares

_OBJECTIVES: dict[str, _adapt.Objective] = {
    "symnets": symnet_losses,
    "symnets-v2": symnet_v2_losses,
}
_EPOCHS, _STEPS = 20, 1000  # at least, by default
_ESTIMATES = (0.2, 0.4, 0.6, 0.8)  # of training, when the shares are estimated
_FORMAT = 2  # of state_dict; 0.2.0 had none


class SymNetClassifier:
    r"""Classifier of features, adapted from a labelled domain to an unlabelled one.

    On fixed features of both domains it trains an extractor, here a bottleneck :math:`G`, and a
    :class:`SymmetricHead` with the losses :math:`\mathcal{L}(\lambda)` of :func:`symnet_losses` or
    :func:`symnet_v2_losses`,

    .. math::

        G(x) = \mathrm{ReLU}(\mathrm{BN}(W x / \lVert x \rVert + c)), \qquad
        \min \; \mathcal{L}(\lambda) + \lambda \cdot \mathrm{balance} \cdot
        \mathrm{KL}(m \,\|\, \mathrm{prior})

    where the last term is :func:`symloss.functional.category_balance`. Predictions come from the
    target classifier :math:`C^t`.

    It follows scikit-learn's conventions, except that :meth:`fit` takes the target as a third
    argument. A ``Pipeline`` transforms the target only if it has
    ``transform_input=["target_features"]``, under
    ``sklearn.set_config(enable_metadata_routing=True)``, with scikit-learn 1.6 or later; otherwise
    transform both domains yourself. The ``best_score_`` of ``GridSearchCV`` is accuracy on the
    source: loop over ``ParameterGrid`` instead, and compare label-free scores from
    :mod:`symloss.scores`.

    Tensors in, tensors out; anything else gives NumPy arrays. A memory map (``np.load(path,
    mmap_mode="r")``) is read in batches and never copied whole.

    Args:
        objective: ``"symnets-v2"`` or ``"symnets"``.
        balance: Weight of the category balance, at least 0. At 0, ``prior`` is not used either.
        prior: Share of each category in the target: ``"estimate"``, as
            :func:`symloss.estimate_prior` does, from the features before training, and from the
            network's at 20, 40, 60 and 80 % of training; numbers in the order of ``classes_``; a
            dict or Series by category; or equal shares if None. A share of 0 is trained as a
            thousandth of an equal share. Labels of categories whose share is below a fifth of an
            equal one count less, in proportion.
        preprocessing: ``"l2"`` scales each row to length 1, ``"standardise"`` each column to mean 0
            and variance 1 over both domains, for columns in different units; None leaves features
            as they are. Computed in float64, trained in float32. If there are more than 384
            columns, 384 principal components of both domains are kept.
        bottleneck: Width of the bottleneck.
        epochs: Passes over the larger domain; if None, 20, or enough to reach 1,000 steps.
        batch_size: Rows of each domain per step, at least 2. It is limited to the larger domain; a
            smaller domain repeats rows within a batch. Both warn.
        lr: Initial learning rate, lowered by :class:`AnnealedLR`.
        weight_decay: Weight decay.
        device: Where to train and predict.
        random_state: Seed, at least 0, or a generator of NumPy, torch or Python to draw it from.
            The same seed gives the same result on one machine, in any thread. If None, it is drawn
            from torch's global generator, which nothing else uses.
        verbose: Whether to show a progress bar, with the trust in estimated shares; needs tqdm.

    Attributes:
        classes_: The K categories in order: a tensor if the labels were one, else an array.
        extractor_: Preprocessing and bottleneck, a module from ``(N, F)`` to ``(N, bottleneck)``.
        head_: The :class:`SymmetricHead`. If you replace it or ``extractor_``, only the number of
            categories is checked.
        prior_: The target's shares at the end of training, ``(K,)``, in the order of ``classes_``;
            None if ``balance`` is 0.
        trust_: How far estimated shares can be trusted, in [0, 1]
            (:class:`symloss.EstimatedPrior`); None if they were given.
        history_: One dict per epoch with the mean of each loss.
        n_features_in_: Width F of the features.
        feature_names_in_: Names of the columns, if features were a table whose names are strings.

    Example:
        >>> labels = torch.arange(600) % 3
        >>> features, shift = torch.eye(3)[labels], torch.tensor([0.3, 0.1, 0.0])
        >>> model = SymNetClassifier(random_state=0).fit(features, labels, features + shift)
        >>> model.predict(features[:4] + shift)
        tensor([0, 1, 2, 0])
    """

    prior_: Any
    trust_: float | None
    history_: list[dict[str, float]]
    _columns: list[Any] | None
    _novelty: Novelty | None = None  # of a state that was saved without it

    def __init__(
        self,
        *,
        objective: str = "symnets-v2",
        balance: float = 1.0,
        prior: Any = "estimate",
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
        self.preprocessing = preprocessing
        self.bottleneck = bottleneck
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, features: Any, labels: Any, target_features: Any, *, target_labels: Any = None
    ) -> "SymNetClassifier":
        """Train on labelled source features and on target features, of which a few may be labelled.

        A fit that fails or is interrupted leaves the model as it was.

        Args:
            features: Source features, ``(N, F)``, at least 2 rows.
            labels: Source labels, ``(N,)``, none missing: whole numbers, strings or booleans.
            target_features: Target features, ``(M, F)``, at least 2 rows.
            target_labels: Labels of target rows, ``(M,)``, missing ones marked None, NaN or, unless
                it is one of ``labels``, -1 (whole numbers). Labelled rows are trained on with (5)
                and (6) for the head and (8) for the extractor, and stay among the unlabelled ones
                too.

        Returns:
            The classifier itself.

        Raises:
            TypeError: If features are sparse, or a parameter has the wrong type.
            ValueError: If features are masked or not finite, labels are missing or marked as
                unlabelled (-1), target labels are not among ``labels``, shapes do not fit, there is
                only one category, or a parameter is out of range.
            FloatingPointError: If training diverged.
        """
        aside = copy.copy(self)
        aside._check_parameters()
        device = torch.device(aside.device)
        with own_modes(device), _rows.hint_at_routing():
            classes, y = _labels.encode(labels)
            columns = _rows.columns(features)
            _rows.check_columns("target_features", target_features, columns)
            _rows.warn_about_order(features, labels)
            source = as_rows("features", features)
            target = as_rows("target_features", target_features)
            _rows.check_pair(source, y, target)
            y_t = None
            if target_labels is not None:
                y_t = _labels.of_target(target_labels, classes, len(target))
                _rows.warn_about_order(target_features, target_labels, "target_")
            prior = aside._given_prior(classes)
            seed = _sklearn.seed(aside.random_state)
            generator = torch.Generator("cpu").manual_seed(seed)
            preprocessing = Preprocessing(aside.preprocessing, source.shape[1]).to(device)
            preprocessing.fit(source, target, generator)
            _rows.warn_about_scale(source, target)
            length = aside._length(len(source), len(target))
            aside._build(preprocessing, aside.bottleneck, classes, seed)
            own = torch.Generator("cpu").manual_seed(seed)  # what novelty draws moves no prediction
            shares = Shares(preprocessing, source, y, target, own)
            try:
                names, means = aside._train(
                    (source, target), (y, y_t), prior, shares, length, generator
                )
                learnt = [*aside.extractor_.parameters(), *aside.head_.parameters()]
                if not all(values.isfinite().all() for values in (means, *learnt)):
                    raise FloatingPointError("training diverged")
            except FloatingPointError as error:
                raise FloatingPointError(f"{error} at lr={self.lr}: try a smaller one") from None
            aside.history_ = [dict(zip(names, epoch, strict=True)) for epoch in means.tolist()]
            aside._columns = columns
            aside._novelty = Novelty.of(shares)
        params = self.get_params()
        vars(self).update({k: v for k, v in vars(aside).items() if k not in params})
        return self

    def _train(
        self,
        rows: tuple[Tensor, Tensor],
        labels: tuple[Tensor, Tensor | None],
        prior: Tensor | None,
        shares: Shares,
        length: tuple[int, int, int],
        generator: torch.Generator,
    ) -> tuple[list[str], Tensor]:
        """Return the names of the losses and their means, one row per epoch."""
        (rows_s, rows_t), (y, y_t) = rows, labels
        size, per_epoch, total = length
        extractor, head, device = self.extractor_, self.head_, torch.device(self.device)
        preprocessing, bottleneck = extractor[0], extractor[1:]
        assert isinstance(preprocessing, Preprocessing)
        trust, estimates = None, set[int]()
        if self.balance and isinstance(self.prior, str):
            prior, trust = shares.before()
            estimates = {int(part * total) for part in _ESTIMATES}
        held = _rows.held(preprocessing, rows_s, rows_t)
        training = _adapt.Training(
            bottleneck if held else extractor,
            head,
            held or rows,
            y,
            size=size,
            total=total,
            generator=generator,
            y_t=y_t,
            lr=self.lr,
            weight_decay=self.weight_decay,
        )
        prior = None if prior is None else prior.to(device, torch.float32)
        objective, sums = _OBJECTIVES[self.objective], list[Tensor]()
        names: list[str] = []
        steps = self._steps(total)
        for i in steps:
            if i % per_epoch == 0:
                sums.append(torch.zeros((), dtype=torch.float32, device=device))
            if i in estimates:
                estimated, trust = shares.seen_by(bottleneck, head)
                prior = estimated.to(device)
                if hasattr(steps, "set_postfix_str"):
                    steps.set_postfix_str(f"estimated shares, trust {trust:.2f}")
            extractor.train()
            names, values = training.step(i, objective, self.balance, prior)
            sums[-1] = sums[-1] + values
        self._set_prior(prior)
        self.trust_ = trust
        return names, torch.stack(sums) / per_epoch

    def predict(self, features: Any) -> Any:
        """Return each row's category, one of ``classes_``, ``(N,)``."""
        index = self._read("features", features, lambda f: self.head_.predict(f))
        return _labels.named(features, self.classes_, index)

    def predict_proba(self, features: Any) -> Any:
        """Return the target classifier's probabilities, ``(N, K)``, ordered as ``classes_``."""
        return like(features, self._read("features", features, self._probabilities))

    def transform(self, features: Any) -> Any:
        """Return the bottleneck's features, ``(N, bottleneck)``, float32."""
        return like(features, self._read("features", features, lambda f: f))

    def novelty(self, features: Any) -> Any:
        r"""Return how little each row resembles any category, ``(N,)``, float32; higher: less.

        To find objects that only the target has, do not threshold :meth:`predict_proba`: adaptation
        makes predictions on them certain, too. This score uses the preprocessed features :math:`z`
        before adaptation. The resemblance of a row to its nearest category is

        .. math::

            s(z) = \max_k \cos(z - o, \; \mu_k - \bar\mu), \qquad
            o = \bar z + \sum_k (1/K - \pi_k) \mu_k

        where :math:`\mu_k` are the means of the source's categories, :math:`\bar\mu` is their mean,
        :math:`\bar z` the mean of the target and :math:`\pi` its shares, as in the first estimate
        of :func:`symloss.estimate_prior`. Since objects come in groups, the resemblance is averaged
        over the target's clusters, whose mean resemblances :math:`s_j` and directions :math:`p_j`
        come from k-means in :meth:`fit` (four per category, at most 256):

        .. math::

            \mathrm{novelty}(z) = 1 - b(z) \sum_j w_j s_j, \qquad
            w = \mathrm{softmax}_j \bigl(5 \cos(z - \bar z, \; p_j)\bigr)

        :math:`b` is 1 among the target rows of :meth:`fit`, and falls towards 0 farther out or in
        other directions. To choose a threshold, reject the share of the target that
        :meth:`diagnose` reports, or look at the rows around it.

        Args:
            features: Features, ``(N, F)``, of the target.

        Returns:
            Novelty, about 0 to 1. Predictions do not depend on it.

        Raises:
            RuntimeError: If the model was loaded from a state without it.

        Example:
            >>> labels = torch.arange(600) % 3
            >>> features = torch.eye(4)[labels] + 0.1 * torch.randn(600, 4)
            >>> unknown = torch.eye(4)[3] + 0.1 * torch.randn(200, 4)
            >>> target = torch.cat([features, unknown])
            >>> model = SymNetClassifier(epochs=1, random_state=0).fit(features, labels, target)
            >>> novelty = model.novelty(target)
            >>> bool(novelty[600:].mean() > novelty[:600].mean() + 0.2)
            True
        """
        _sklearn.check_fitted(self)
        if self._novelty is None:
            raise RuntimeError(
                "this model was loaded from a state saved without novelty; fit it again"
            )
        return like(features, self._read("features", features, self._novelty, before=True))

    def score(self, features: Any, labels: Any, sample_weight: Any = None) -> float:
        """Return the accuracy, in [0, 1], on rows whose labels are known.

        Args:
            features: Features, ``(N, F)``.
            labels: Their labels, ``(N,)``, none missing. One that is not in ``classes_`` counts as
                a mistake.
            sample_weight: Weight of each row, ``(N,)``, at least 0; equal if None.

        Returns:
            The weighted share of rows whose predicted category is their label.

        Raises:
            ValueError: If ``labels`` or ``sample_weight`` do not have one entry for each row,
                labels are missing, or none is in ``classes_``.
        """
        index = self._read("features", features, lambda f: self.head_.predict(f))
        _rows.warn_about_order(features, labels)
        right = (_labels.positions(labels, self.classes_, len(index)) == index).double()
        if sample_weight is None:
            return float(right.mean())
        try:
            weight = torch.tensor(_rows.listed(sample_weight), dtype=torch.float64, device="cpu")
        except (TypeError, ValueError):
            raise TypeError(f"sample_weight must be numbers, got {sample_weight!r}") from None
        if weight.shape != right.shape:
            raise ValueError(
                f"sample_weight must have shape ({len(right)},), one number for each row, got "
                f"{tuple(weight.shape)}"
            )
        if not (weight >= 0).all() or not 0 < weight.sum() < math.inf:
            raise ValueError("sample_weight must be finite, at least 0, and not 0 in every row")
        return float((right * weight).sum() / weight.sum())

    def diagnose(self, target_features: Any) -> Diagnosis:
        """Report, without labels, what may be wrong: lost categories, unknown objects.

        Args:
            target_features: Target features, ``(M, F)``.

        Returns:
            How often each category is predicted and expected, how often both classifiers agree, and
            how much of the target resembles no category (:meth:`novelty`); ``print`` it. If it is
            not ``healthy``, a UserWarning gives the most important finding.
        """
        logits = self._read("target_features", target_features, lambda f: self.head_(f))
        source, target = split_logits(logits)
        prior = None if self.prior_ is None else torch.as_tensor(self.prior_)
        found = diagnose(target, plain(self.classes_), prior, other_logits=source)
        found = replace(found, trust=self.trust_)
        if self._novelty is not None:
            unusual = self._read("target_features", target_features, self._novelty.unusual, True)
            found = replace(found, novel=self._novelty.reported(float(unusual.double().mean())))
        if prior is None:
            found = replace(found, expected=None)
        if not found.healthy:
            warnings.warn(found.sentence("a larger balance"), stacklevel=2)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return parameters and learnt attributes as tensors, lists, strings and numbers.

        Example:
            >>> import io
            >>> x, labels, file = torch.randn(200, 4), torch.arange(200) % 2, io.BytesIO()
            >>> model = SymNetClassifier(epochs=1).fit(x, labels, x + 1)
            >>> torch.save(model.state_dict(), file)
            >>> state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
            >>> same = SymNetClassifier().load_state_dict(state)
            >>> torch.equal(same.predict(x), model.predict(x))
            True
        """
        _sklearn.check_fitted(self)
        params = plain(self.get_params() | {"device": str(self.device)})
        if not isinstance(params["random_state"], int | float):  # a generator cannot be saved so
            params["random_state"] = None
        return {
            "format": _FORMAT,
            "params": params,
            **_labels.saved(self.classes_),
            "columns": plain(self._columns),
            "preprocessing": self.extractor_[0].kind,
            "extractor": self.extractor_.state_dict(),
            "head": self.head_.state_dict(),
            "prior": plain(self.prior_),
            "trust": self.trust_,
            "novelty": None if self._novelty is None else self._novelty.state_dict(),
            "history": self.history_,
        }

    def load_state_dict(self, state: dict[str, Any]) -> "SymNetClassifier":
        """Load parameters, except the device, and learnt attributes; return the model.

        Args:
            state: What :meth:`state_dict` returned.

        Raises:
            ValueError: If it is another state, or of a later version.
        """
        aside = copy.copy(self)  # a state that does not fit leaves the model as it was
        if (version := state.get("format", 1)) > _FORMAT:
            raise ValueError(
                f"state must have format {_FORMAT} or lower, got {version}, from a later version "
                "of symloss"
            )
        if "params" not in state:
            raise ValueError(
                f"state must be that of a SymNetClassifier, got one with {sorted(state)[:3]}"
            )
        params = state["params"] | {"device": self.device}
        if params.pop("partial", False):  # of 0.2.0, where it replaced the balance
            params["balance"] = 0.0
        with own_modes(checked_device(self.device)):
            aside.set_params(**params)
            axes, width = state["extractor"].get("0.axes"), len(state["extractor"]["0.mean"])
            preprocessing = Preprocessing(state["preprocessing"], width)
            preprocessing.axes = axes
            bottleneck = len(state["extractor"]["1.weight"])
            aside._build(preprocessing, bottleneck, _labels.restored(state), seed=0)
            aside.extractor_.load_state_dict(state["extractor"])
            aside.head_.load_state_dict(state["head"])
            aside.history_, aside._columns = state["history"], state.get("columns")
            prior = state.get("prior")
            if version == 1 and aside.balance:  # prior_ was not saved
                prior = aside._given_prior(aside.classes_)
            aside._set_prior(prior)
            aside.trust_ = state.get("trust")
            novelty = state.get("novelty")
            aside._novelty = novelty and Novelty(**novelty).to(self.device)
        vars(self).update(vars(aside))
        return self

    @property
    def feature_names_in_(self) -> Any:
        """Names of the columns; AttributeError unless features were a table with names."""
        columns = vars(self).get("_columns")
        if columns is None or not all(isinstance(column, str) for column in columns):
            raise AttributeError(f"{type(self).__name__} was not fitted on columns with names")
        return _rows.names(columns)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments by name; ``deep`` is for scikit-learn only."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> "SymNetClassifier":
        """Set the constructor's arguments by name; return the model.

        Raises:
            ValueError: If a name is unknown.
        """
        known = self.get_params()
        for name in params:
            if name not in known:
                raise ValueError(f"Invalid parameter {name!r}: must be one of {', '.join(known)}")
        vars(self).update(params)
        return self

    def __repr__(self) -> str:
        """Return the constructor call, without arguments that have their defaults."""
        return _sklearn.described(self)

    def set_fit_request(self, **requests: bool | str | None) -> "SymNetClassifier":
        """Set what scikit-learn's metadata routing passes on to :meth:`fit`; return the model.

        Args:
            requests: ``target_features``, ``target_labels``: True (the default), False, or the name
                by which a pipeline or search takes them.
        """
        _sklearn.request(self, requests)
        return self

    def get_metadata_routing(self) -> Any:
        """Return scikit-learn's ``MetadataRequest``; only scikit-learn calls it."""
        return _sklearn.requests(self)

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's estimator tags; only scikit-learn calls it."""
        return _sklearn.tags()

    def _check_parameters(self) -> None:
        """Check the parameters, and convert numbers to Python's."""
        choices = {"objective": [*_OBJECTIVES], "preprocessing": _rows.PREPROCESSING}
        for name, known in choices.items():
            value = getattr(self, name)
            if not isinstance(value, str | None) or value not in known:
                listed = ", ".join(map(repr, known))
                raise ValueError(f"{name} must be one of {listed}, got {value!r}")
        for name in ("balance", "weight_decay", "lr"):
            value, above = _sklearn.real(name, getattr(self, name)), name == "lr"
            if not 0 <= value < math.inf or (above and value == 0):
                bound = "above" if above else "at least"
                raise ValueError(f"{name} must be finite and {bound} 0, got {value}")
            setattr(self, name, value)
        for name, least in (("bottleneck", 1), ("batch_size", 2), ("epochs", 1)):
            if (value := getattr(self, name)) is not None:
                setattr(self, name, _sklearn.whole(name, value, least))
        self.device = checked_device(self.device)
        if isinstance(self.verbose, str) or self.verbose not in (True, False):
            raise TypeError(f"verbose must be True or False, got {self.verbose!r}")
        if isinstance(self.prior, str) and self.prior != "estimate":
            raise ValueError(f"prior must be 'estimate', shares or None, got {self.prior!r}")

    def _given_prior(self, classes: Any) -> Tensor | None:
        """Return the user's shares, checked, or equal ones; None if not needed."""
        if isinstance(self.prior, str):
            return None
        prior = _labels.shares(self.prior, classes, least=1e-3)
        if prior is None:
            prior = torch.full((len(classes),), 1 / len(classes), device="cpu")
        category_balance(torch.zeros(1, 2 * len(classes), device="cpu"), prior)  # checks it
        return prior if self.balance else None

    def _set_prior(self, prior: Any) -> None:
        """Keep the shares that were used, in the type of the classes."""
        self.prior_ = None
        if prior is not None:
            shares = torch.as_tensor(prior, dtype=torch.float32, device="cpu")
            self.prior_ = shares if isinstance(self.classes_, Tensor) else shares.numpy()

    def _length(self, *rows: int) -> tuple[int, int, int]:
        """Return the rows per batch, the steps per epoch, and the total steps."""
        size, asked = min(self.batch_size, max(rows)), self.batch_size
        if min(rows) < asked:
            shrunk = f"; using {size}" if size < asked else ""
            again = "; its rows are drawn again within each batch" if min(rows) < size else ""
            warnings.warn(
                f"batch_size={asked} exceeds the smaller domain ({min(rows)} rows){shrunk}{again}",
                stacklevel=3,
            )
        per_epoch = max(rows) // size
        epochs = self.epochs or max(_EPOCHS, math.ceil(_STEPS / per_epoch))
        return size, per_epoch, epochs * per_epoch

    def _build(
        self, preprocessing: Preprocessing, bottleneck: int, classes: Any, seed: int
    ) -> None:
        self.classes_, self.n_features_in_ = classes, len(preprocessing.mean)
        layers, head = _adapt.network(preprocessing.width, bottleneck, len(classes), seed)
        self.extractor_ = nn.Sequential(preprocessing, *layers).to(self.device)
        self.head_ = head.to(self.device)

    def _steps(self, total: int) -> Iterable[int]:
        if self.verbose:
            with suppress(ImportError):
                from tqdm.auto import tqdm

                bar: Iterable[int] = tqdm(range(total), desc=type(self).__name__, unit="step")
                return bar
        return range(total)

    def _read(
        self, name: str, features: Any, call: Callable[[Tensor], Tensor], before: bool = False
    ) -> Tensor:
        """Apply ``call`` to the bottleneck's output for a user's rows; return it on the CPU.

        With ``before``, apply it to the bottleneck's input.
        """
        _sklearn.check_fitted(self)
        _rows.check_columns(name, features, self._columns)
        rows = as_rows(name, features)
        own = getattr(self.head_, "num_classes", len(self.classes_))
        if own != len(self.classes_):
            raise ValueError(
                f"head_ must have {len(self.classes_)} categories, as classes_, got {own}"
            )
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {rows.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        with own_modes(self.head_.weight.device):
            return self._apply(call, rows, name, before)

    def _probabilities(self, bottleneck: Tensor) -> Tensor:
        return split_logits(self.head_(bottleneck))[1].softmax(1)

    @torch.no_grad()
    def _apply(
        self, call: Callable[[Tensor], Tensor], rows: Tensor, name: str, before: bool
    ) -> Tensor:
        layers, device = self.extractor_.eval(), self.head_.weight.device
        extractor: nn.Module = layers[0] if before else layers
        return _rows.apply(lambda x: call(extractor(x)), rows, device, name)
