"""The losses once more, in numpy and float64, from the paper's equations, with their gradients.

Every function takes joint logits ``(N, 2K)`` (and labels ``(N,)``) and returns the loss ``(N,)``
and its gradient ``(N, 2K)``. The softmax does not change when the largest logit is subtracted, and
sums of exponentials stay in the log domain, so that logits of any size have an exact reference.
"""

import numpy as np


def lse(x):
    return np.logaddexp.reduce(x, axis=1, keepdims=True)


def log_sigmoid(d):
    return -np.logaddexp(0.0, -d)


def parts(v):
    v = np.asarray(v, dtype=np.float64)
    v = v - v.max(axis=1, keepdims=True)
    s, t = np.split(v, 2, axis=1)
    return v, s, t, lse(s), lse(t)


def onehot(labels, n):
    return np.eye(n)[labels]


def source_task(v, y):
    _, s, t, a, _ = parts(v)
    hot = onehot(y, s.shape[1])
    return ((a - s) * hot).sum(1), np.hstack([np.exp(s - a) - hot, np.zeros_like(t)])


def target_task(v, y):
    _, s, t, _, b = parts(v)
    hot = onehot(y, t.shape[1])
    return ((b - t) * hot).sum(1), np.hstack([np.zeros_like(s), np.exp(t - b) - hot])


def discrimination_of_source(v):
    _, s, t, a, b = parts(v)
    p_target = np.exp(log_sigmoid(b - a))
    gradient = np.hstack([-p_target * np.exp(s - a), p_target * np.exp(t - b)])
    return -log_sigmoid(a - b)[:, 0], gradient


def discrimination_of_target(v):
    _, s, t, a, b = parts(v)
    p_source = np.exp(log_sigmoid(a - b))
    gradient = np.hstack([p_source * np.exp(s - a), -p_source * np.exp(t - b)])
    return -log_sigmoid(b - a)[:, 0], gradient


def category_confusion(v, y):
    v, s, _, _, _ = parts(v)
    z = lse(v)
    half = np.tile(onehot(y, s.shape[1]), 2) / 2
    return ((z - v) * half).sum(1), np.exp(v - z) - half


def domain_confusion(v):
    _, s, t, a, b = parts(v)
    slope = np.tanh((a - b) / 2) / 2
    gradient = np.hstack([slope * np.exp(s - a), -slope * np.exp(t - b)])
    return -(log_sigmoid(a - b) + log_sigmoid(b - a))[:, 0] / 2, gradient


def symmetric_entropy(v):
    v, s, t, _, _ = parts(v)
    u = np.logaddexp(s, t)
    log_q = u - lse(u)
    q = np.exp(log_q)
    entropy = -(q * log_q).sum(1, keepdims=True)
    du = -q * (log_q + entropy)
    return entropy[:, 0], np.hstack([du * np.exp(s - u), du * np.exp(t - u)])


def discrimination_of_category(v, y):
    v, s, t, _, _ = parts(v)
    z = lse(v)
    hot = np.hstack([onehot(y, s.shape[1]), np.zeros_like(t)])
    return ((z - v) * hot).sum(1), np.exp(v - z) - hot


def target_category_confusion(v):
    v, s, t, _, _ = parts(v)
    z = lse(v)
    p, swapped = np.exp(v - z), np.exp(np.hstack([t, s]) - z)
    log_swapped = np.hstack([t, s]) - z
    twice = -(p * log_swapped).sum(1, keepdims=True)
    return twice[:, 0] / 2, (p * (1 - log_swapped - twice) - swapped) / 2


def category_balance(v, prior):
    """The one loss of the batch, so its value is a number."""
    v, s, t, _, _ = parts(v)
    log_q = np.logaddexp(s, t) - lse(v)
    log_m = np.logaddexp.reduce(log_q, axis=0) - np.log(len(v))
    ratio = np.tile(log_m - np.log(prior), 2)
    p = np.exp(v - lse(v))
    gradient = p * (ratio - (p * ratio).sum(1, keepdims=True)) / len(v)
    return (np.exp(log_m) * (log_m - np.log(prior))).sum(), gradient


def flatten(v):
    """Turn ``(N, 2K, ...)`` into ``(positions, 2K)``."""
    v = np.asarray(v, dtype=np.float64)
    return np.moveaxis(v, 1, -1).reshape(-1, v.shape[1])
