"""Scripts for TensorFlow 1 on TensorFlow 2: the real one in processes of its own, and stand-ins for what it may be."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.job.test_digits import QUIET, build, labels  # noqa: F401  # fixtures
from tests.support.jobs import REPOSITORY, Job

NewJob = Callable[..., Job]

INSTALL = """
import logging, sys
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(levelname)s %(message)s")
from mpi_prs.child.shims import tensorflow1
tensorflow1.install()
"""


def python(code: str, *folders: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", INSTALL + textwrap.dedent(code)],
        env={**os.environ, **QUIET, "PYTHONPATH": os.pathsep.join(map(str, [*folders, REPOSITORY]))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# The real TensorFlow


@pytest.mark.job
def test_graphs_sessions_and_imports_of_all_kinds_work() -> None:
    printed = python(
        """
        import tensorflow as tf
        import tensorflow
        import tensorflow.keras.layers
        from tensorflow import keras
        from tensorflow.python.platform import gfile
        from tensorflow.python.framework import ops
        import tensorflow.compat.v1 as v1
        import tensorflow.compat.v2 as v2

        assert tf is tensorflow is sys.modules["tensorflow"]
        assert not tf.executing_eagerly()
        assert tf.keras.layers is tensorflow.keras.layers
        assert tf.Session is v1.Session and tf.Graph is v2.Graph
        assert tf.__version__.startswith("2.") and tf.__name__ == "tensorflow"
        assert {"Session", "placeholder", "function"} <= set(dir(tf))
        assert gfile.GFile is tf.gfile.GFile and ops.Graph is tf.Graph

        tf.reset_default_graph()
        x = tf.placeholder(tf.float32, [None, 2], name="x")
        weights = tf.get_variable("weights", [2, 1], initializer=tf.ones_initializer())
        y = tf.matmul(x, weights)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            print(session.run(y, {x: [[1, 2]]}).tolist(), y.eval({x: [[3, 4]]}).tolist())
        try:
            tf.contrib.layers
        except AttributeError as error:
            print(error)
        """
    )
    lines = printed.splitlines()
    assert "[[3.0]] [[7.0]]" in lines
    assert sum("is used through its interface of version 1" in line for line in lines) == 1
    assert re.search(r"TensorFlow 2\.\S+ has no tf\.contrib: tf\.contrib was no part of TensorFlow 2", printed)


ENTRY_SCRIPT = """
# Snippets from a sample script.
# Refer to the accompanying digit_identification.py
# (https://github.com/Azure/MachineLearningNotebooks/tree/master/how-to-use-azureml/machine-learning-pipelines/parallel-run)
# for the implementation script.

import os
import numpy as np
import tensorflow as tf
from PIL import Image
from azureml.core import Model


def init():
    global g_tf_sess

    # Pull down the model from the workspace
    model_path = Model.get_model_path("mnist")

    # Construct a graph to execute
    tf.reset_default_graph()
    saver = tf.train.import_meta_graph(os.path.join(model_path, 'mnist-tf.model.meta'))
    g_tf_sess = tf.Session()
    saver.restore(g_tf_sess, os.path.join(model_path, 'mnist-tf.model'))


def run(mini_batch):
    print(f'run method start: {__file__}, run({mini_batch})')
    resultList = []
    in_tensor = g_tf_sess.graph.get_tensor_by_name("network/X:0")
    output = g_tf_sess.graph.get_tensor_by_name("network/output/MatMul:0")

    for image in mini_batch:
        # Prepare each image
        data = Image.open(image)
        np_im = np.array(data).reshape((1, 784))
        # Perform inference
        inference_result = output.eval(feed_dict={in_tensor: np_im}, session=g_tf_sess)
        # Find the best probability, and add it to the result list
        best_result = np.argmax(inference_result)
        resultList.append("{}: {}".format(os.path.basename(image), best_result))

    return resultList
"""


def test_the_tutorials_entry_script_runs_unedited(
    new_job: NewJob,
    build: Path,  # noqa: F811
    labels: dict[str, int],  # noqa: F811
    tmp_path: Path,
) -> None:
    register = f"""
        from mpi_prs import Model, Workspace
        workspace = Workspace.create("w", folder={str(tmp_path / "workspace")!r})
        Model.register(workspace, model_path={str(build / "models")!r} + "/", model_name="mnist")
    """
    python(register)
    job = new_job(
        ENTRY_SCRIPT,
        items=0,
        inputs=[str(build / "data" / "digits" / "*0.png")],
        environment_variables={
            "MPI_PRS_WORKSPACE": str(tmp_path / "workspace"),
            "MPI_PRS_TENSORFLOW1": "1",
            **QUIET,
        },
    )
    done = job.local(processes=1)
    assert done.returncode == 0, done.stdout
    rows = dict(csv.reader(job.rows(), delimiter=":", skipinitialspace=True))
    expected = {name: str(label) for name, label in labels.items() if name.endswith("0.png")}
    assert set(rows) == set(expected)
    assert sum(rows[name] == expected[name] for name in expected) >= 0.9 * len(expected)
    assert job.log("stderr").count("is used through its interface of version 1") == 1


# Stand-ins

STAND_IN = {
    "tensorflow/__init__.py": """
        __version__ = "{version}"
        from tensorflow import compat
        import os
        legacy = os.environ.get("TF_USE_LEGACY_KERAS")
        only_in_2 = "2"
        both = "2"
        behaviour = []
        if "{version}".startswith("1."):
            Session = "real"
    """,
    "tensorflow/compat/__init__.py": "from tensorflow.compat import v1",
    "tensorflow/compat/v1.py": """
        import tensorflow
        Session = "v1"
        both = "1"
        def disable_v2_behavior():
            tensorflow.behaviour.append("v1")
    """,
    "tensorflow/python/__init__.py": "part = 'part'",
}


def stand_in(folder: Path, version: str = "2.99", **others: str) -> Path:
    for name, text in {**STAND_IN, **others}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).replace("{version}", version))
    return folder


def test_a_name_is_version_1s_and_else_version_2s(tmp_path: Path) -> None:
    printed = python(
        """
        import tensorflow as tf, tensorflow.python
        print(tf.Session, tf.both, tf.only_in_2, tf.behaviour, tf.python.part, tf.legacy)
        tf.both = "mine"
        import tensorflow
        print(tensorflow.both, hasattr(tf, "nothing"))
        """,
        stand_in(tmp_path),
    )
    assert printed.splitlines()[1:] == ["v1 1 2 ['v1'] part None", "mine False"]


def test_keras_2_is_taken_where_it_is_installed(tmp_path: Path) -> None:
    folder = stand_in(tmp_path, **{"tf_keras/__init__.py": ""})
    assert python("import tensorflow as tf; print(tf.legacy)", folder).split()[-1] == "1"


def test_a_real_version_1_stays_what_it_is(tmp_path: Path) -> None:
    printed = python("import tensorflow as tf; print(tf.Session, tf.behaviour)", stand_in(tmp_path, "1.15.2"))
    assert printed == "real []\n"


def test_without_tensorflow_the_message_is_pythons(tmp_path: Path) -> None:
    code = """
        sys.path[:] = [path for path in sys.path if "site-packages" not in path]
        try:
            import tensorflow
        except ModuleNotFoundError as error:
            print(error)
    """
    assert python(code, tmp_path) == "No module named 'tensorflow'\n"


def test_it_takes_hold_of_what_was_imported_already_and_lets_go(tmp_path: Path) -> None:
    printed = python(
        """
        tensorflow1.uninstall()
        import tensorflow as real
        tensorflow1.install()
        tensorflow1.install()
        import tensorflow as tf
        print(tf.Session, tf is real, tf.real is real)
        tensorflow1.uninstall()
        import tensorflow as again
        print(again is real, sum(isinstance(one, tensorflow1.TensorFlowFinder) for one in sys.meta_path))
        """,
        stand_in(tmp_path),
    )
    assert printed.splitlines()[1:] == ["v1 False True", "True 0"]


@pytest.mark.parametrize(("value", "expected"), [("1", "v1"), ("0", "none"), (None, "none")])
def test_user_processes_and_what_they_start_do_it_when_the_variable_says_so(
    new_job: NewJob, value: str | None, expected: str
) -> None:
    script = """
import multiprocessing, os
import tensorflow as tf

def session(_):
    return getattr(tf, "Session", "none")

def run(mini_batch):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        [below] = pool.map(session, [1])
    return [f"{os.path.basename(path)} {session(0)} {below}" for path in mini_batch]
"""
    job = new_job(script, items=4, environment_variables={} if value is None else {"MPI_PRS_TENSORFLOW1": value})
    stand_in(job.folder)
    done = job.local(processes=1)
    assert done.returncode == 0, done.stdout + job.log("stderr")
    assert sorted(job.rows()) == [f"{name} {expected} {expected}" for name in job.names]
