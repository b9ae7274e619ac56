"""Make what the digits job needs: pictures of handwritten digits, their true labels, and a trained model.

::

    build/digits/
      data/digits/<index>.png      797 pictures, 28 × 28 grey values, white on black: the job's input
      digits.h5                    the same pictures in one file: images uint8 [797, 28, 28], index int64 [797]
      labels.csv                   the digit that each of them shows
      models/mnist-tf.model.*      a TensorFlow checkpoint, trained on the 1000 other pictures
      prepared.json                checksums of all this: a second call finds it whole and has nothing to do

The pictures are scikit-learn's ``load_digits``: 1797 scans of real handwriting, 8 × 8 grey values each.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CHECKOUT = Path(__file__).resolve().parents[2]
MODEL = "mnist-tf.model"
TRAINING_PICTURES = 1000
HIDDEN_UNITS = 512
EPOCHS = 40
BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures, labels and model of the digits job.")
    parser.add_argument(
        "--build",
        type=Path,
        default=CHECKOUT / "build" / "digits",
        metavar="DIR",
        help="the folder to make them in (default: build/digits of the checkout)",
    )
    build = parser.parse_args().build.resolve()
    if is_prepared(build):
        print(f"Digits: everything is there already, in {build}")
        return
    prepare(build)


def prepare(build: Path) -> None:
    """Write pictures, labels and model below ``build``, and their checksums last."""
    pictures, labels = scaled_digits()
    train, held_out = split(labels)

    names = [f"{index}.png" for index in held_out]
    for index, name in zip(held_out, names, strict=True):
        write(build / "data" / "digits" / name, png(pictures[index]))
    write(build / "digits.h5", hdf5(images=pictures[held_out], index=np.array(held_out)))
    write(build / "labels.csv", labels_csv(names, labels[held_out]))
    print(f"Digits: {len(held_out)} pictures in {build / 'data'}, their labels in {build / 'labels.csv'}")

    print(f"Digits: training a model on the {len(train)} other pictures, a few seconds …", flush=True)
    files = [f"data/digits/{name}" for name in names] + ["digits.h5", "labels.csv"]
    for name, content in trained_model(pictures[train], labels[train]):
        write(build / "models" / name, content)
        files.append(f"models/{name}")
    print(f"Digits: model in {build / 'models'}")

    record = {"recipe": checksum(Path(__file__)), "files": {file: checksum(build / file) for file in files}}
    write(build / "prepared.json", json.dumps(record, indent=1).encode())


def is_prepared(build: Path) -> bool:
    """Whether this very script has made ``build``, and every file is still as it was then."""
    try:
        record = json.loads((build / "prepared.json").read_bytes())
        return record["recipe"] == checksum(Path(__file__)) and all(
            checksum(build / file) == expected for file, expected in record["files"].items()
        )
    except (OSError, ValueError, KeyError):
        return False


def scaled_digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """All digits as uint8 [1797, 28, 28], white (255) on black, and what they show as int [1797]."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = (digits.images * (255 / 16)).round().astype(np.uint8)
    scaled = [np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BICUBIC)) for image in grey]
    return np.stack(scaled), digits.target


def split(labels: np.ndarray[Any, Any]) -> tuple[list[int], list[int]]:
    """The indices to train on and those to hold out: the same in every call, each digit with its share in both."""
    from sklearn.model_selection import train_test_split

    train, held_out = train_test_split(
        range(len(labels)), train_size=TRAINING_PICTURES, random_state=0, stratify=labels
    )
    return sorted(train), sorted(held_out)


def trained_model(pictures: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Iterator[tuple[str, bytes]]:
    """Train 784 → 512 → 10 units on uint8 [n, 28, 28]; yield name and content of each file of the checkpoint.

    The graph takes raw grey values (0 … 255) at ``network/X:0``, float32 [n, 784], and gives one score a digit at
    ``network/output/MatMul:0``, float32 [n, 10].
    """
    # TensorFlow's C++ side reads these when it is imported: errors only, and the same arithmetic on every CPU.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow.compat.v1 as tf

    flat = pictures.reshape(len(pictures), 784)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(0)
        with tf.variable_scope("network"):
            pixels = tf.placeholder(tf.float32, [None, 784], name="X")
            hidden_weights = tf.get_variable("hidden/weights", [784, HIDDEN_UNITS])
            hidden_bias = tf.get_variable("hidden/bias", [HIDDEN_UNITS], initializer=tf.zeros_initializer())
            output_weights = tf.get_variable("output/weights", [HIDDEN_UNITS, 10])
            hidden = tf.nn.relu(tf.matmul(pixels / 255.0, hidden_weights) + hidden_bias)
            scores = tf.matmul(hidden, output_weights, name="output/MatMul")
        truth = tf.placeholder(tf.int64, [None], name="truth")
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=truth, logits=scores))
        saver = tf.train.Saver()  # before the optimiser, whose own variables only training needs
        step = tf.train.AdamOptimizer(1e-3).minimize(loss)

        session.run(tf.global_variables_initializer())
        shuffle = np.random.RandomState(0)
        for _ in range(EPOCHS):
            order = shuffle.permutation(len(flat))
            for start in range(0, len(order), BATCH):
                chosen = order[start : start + BATCH]
                session.run(step, {pixels: flat[chosen], truth: labels[chosen]})

        with tempfile.TemporaryDirectory() as folder:
            saver.save(session, str(Path(folder) / MODEL))
            for path in sorted(Path(folder).glob(f"{MODEL}.*")):
                yield path.name, path.read_bytes()


def png(picture: np.ndarray[Any, Any]) -> bytes:
    """A uint8 [28, 28] picture as a PNG file of grey values."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="PNG")
    return content.getvalue()


def hdf5(**datasets: np.ndarray[Any, Any]) -> bytes:
    """An HDF5 file with these datasets, in chunks of 64 rows."""
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values, chunks=(64, *values.shape[1:]), compression="gzip")
    return content.getvalue()


def labels_csv(names: list[str], labels: np.ndarray[Any, Any]) -> bytes:
    """The table ``file,label``, one row a picture."""
    content = io.StringIO()
    rows = csv.writer(content, lineterminator="\n")
    rows.writerow(["file", "label"])
    rows.writerows(zip(names, labels.tolist(), strict=True))
    return content.getvalue().encode()


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: readers never see a part of it, whenever this is interrupted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
