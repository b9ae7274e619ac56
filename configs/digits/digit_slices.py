"""As ``digit_identification.py``, for pictures in an HDF5 file: ``run()`` gets the arrays of some of its rows."""

from digit_identification import classify, init  # noqa: F401  (init() is called by the runner)


def run(mini_batch):
    """Classify ``images``, uint8 [rows, 28, 28]; ``index``, int [rows], says which picture each one is."""
    digits = classify(mini_batch["images"])
    return [f"{index}.png: {digit}" for index, digit in zip(mini_batch["index"], digits, strict=True)]
