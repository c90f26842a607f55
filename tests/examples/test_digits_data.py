import torch
from digits import load_handwritten, render_digits


def test_printed_digits_are_counts_of_on_pixels():
    images, labels = render_digits(300, seed=7)
    assert images.shape == (300, 1, 8, 8)
    assert images.dtype == torch.float32
    assert torch.bincount(labels).tolist() == [30] * 10
    counts = images * 16
    assert torch.equal(counts, counts.round())
    assert counts.min() == 0
    assert counts.max() == 16
    assert (images.flatten(1).mean(1) > 0.08).all()  # no digit is lost


def test_a_seed_gives_the_same_printed_digits_another_one_others():
    first, same, other = (render_digits(300, seed) for seed in (7, 7, 8))
    assert torch.equal(first.images, same.images)
    assert torch.equal(first.labels, same.labels)
    assert not torch.equal(first.images, other.images)


def test_printed_digits_can_be_told_apart():
    train, test = (render_digits(n, seed) for n, seed in ((2000, 0), (300, 1)))
    nearest = torch.cdist(test.images.flatten(1), train.images.flatten(1)).argmin(1)
    assert (train.labels[nearest] == test.labels).double().mean() > 0.9


def test_handwritten_digits_are_the_1797_of_scikit_learn():
    images, labels = load_handwritten()
    assert images.shape == (1797, 1, 8, 8)
    assert images.max() == 1
    assert labels.shape == (1797,)


def test_both_parts_move_to_a_device():
    moved = load_handwritten().to(torch.device("meta"))
    assert moved.images.is_meta
    assert moved.labels.is_meta
