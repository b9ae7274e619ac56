"""The entry script: imported as Python does it, asked for what it offers, and shown by its own traceback."""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.child.mini_batch import MiniBatch, MiniBatchContext, file_mini_batch
from mpi_prs.child.script import (
    NoRunFunction,
    ScriptFunctions,
    import_script,
    prepare_interpreter,
    user_traceback,
)

Load = Callable[..., ScriptFunctions]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Writes a script and imports it as the user process does; afterwards this interpreter is as before."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write_and_import(
        text: str, name: str = "my_entry_script.py", arguments: tuple[str, ...] = ()
    ) -> ScriptFunctions:
        (tmp_path / name).write_text(text)
        prepare_interpreter(str(tmp_path / name), str(tmp_path), arguments)
        return import_script(str(tmp_path / name))

    with mock.patch.dict(sys.modules):
        yield write_and_import


# Importing


def test_it_has_the_functions_of_the_script(load: Load) -> None:
    script = load("""
calls = []
def init():
    calls.append("init")
def run(mini_batch):
    return [*calls, *mini_batch]
def shutdown():
    calls.append("shutdown")
""")
    script.init()
    script.shutdown()

    assert script.run(["a"]) == ["init", "shutdown", "a"]


def test_init_and_shutdown_may_be_missing(load: Load) -> None:
    script = load("def run(mini_batch): return mini_batch")

    script.init()
    script.shutdown()
    assert script.run([1]) == [1]


def test_it_finds_its_arguments_its_folder_and_itself(load: Load, tmp_path: Path) -> None:
    (tmp_path / "helpers_of_the_script.py").write_text("answer = 42")
    script = load(
        """
import sys
from helpers_of_the_script import answer
def run(mini_batch):
    return [sys.argv, answer, __file__, __name__, sys.path[0]]
""",
        arguments=("--model", "m"),
    )
    path = str(tmp_path / "my_entry_script.py")
    assert script.run([]) == [[path, "--model", "m"], 42, path, "my_entry_script", str(tmp_path)]


@pytest.mark.usefixtures("load")
def test_a_script_below_the_source_directory_imports_from_both(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "beside_the_script.py").write_text("x = 1")
    (tmp_path / "top_package").mkdir()
    (tmp_path / "top_package" / "part.py").write_text("y = 2")
    path = tmp_path / "jobs" / "score.py"
    path.write_text("import beside_the_script, top_package.part\ndef run(b): return b")

    before = list(sys.path)
    prepare_interpreter(str(path), str(tmp_path), ())

    assert sys.path == [str(tmp_path / "jobs"), str(tmp_path), *before[1:]]
    assert import_script(str(path)).run([1]) == [1]


def test_the_main_block_of_a_script_is_not_run(load: Load) -> None:
    load("def run(b): return b\nif __name__ == '__main__':\n    raise SystemExit('as a program')")


@pytest.mark.parametrize("module", ["json", "mpi_prs", "tabnanny"])
def test_a_script_that_is_named_like_a_module_does_not_hide_it(
    load: Load, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tabnanny", raising=False)  # one that nobody has imported yet
    before = sys.modules.get(module)

    script = load("def run(mini_batch): return [__name__]", f"{module}.py")

    assert script.run([]) == [f"entry_script_{module}"]
    assert sys.modules.get(module) is before


@pytest.mark.parametrize("name", ["my-script.py", "score.v2.py", "score 2.py", "größe.py", "import.py"])
def test_the_name_of_a_script_need_not_be_one_of_a_module(load: Load, name: str) -> None:
    assert load("def run(mini_batch): return [__file__]", name).run([])[0].endswith(name)


def test_what_the_script_defines_can_be_pickled(load: Load) -> None:
    script = load("class Model:\n    pass\ndef run(mini_batch): return [Model()]")

    (model,) = script.run([])
    assert type(pickle.loads(pickle.dumps(model))) is type(model)


@pytest.mark.parametrize(
    "text", ["", "def Run(b): return b", "run = 7", "run = None", "if False:\n    def run(b): pass"]
)
def test_a_script_without_a_function_run_says_so(load: Load, text: str, tmp_path: Path) -> None:
    with pytest.raises(NoRunFunction) as caught:
        load(text)
    assert str(caught.value) == (
        f"{tmp_path / 'my_entry_script.py'} has no function run(mini_batch); define it at the top level of the script"
    )


def test_a_file_that_is_not_python_by_its_name_is_refused(load: Load) -> None:
    with pytest.raises(ImportError, match=r"score\.txt is not a Python file: its name must end in \.py"):
        load("def run(b): return b", "score.txt")


# The context


@pytest.mark.parametrize(
    ("text", "takes_context"),
    [
        ("def run(mini_batch): pass", False),
        ("def run(mini_batch, mini_batch_context): pass", True),
        ("def run(mini_batch, context=None): pass", True),
        ("def run(mini_batch, /, context): pass", True),
        ("def run(*args): pass", True),
        ("def run(mini_batch, *rest): pass", True),
        ("def run(mini_batch, *, verbose=False): pass", False),
        ("def run(mini_batch, **options): pass", False),
        ("run = lambda batch: batch", False),
        ("run = list", False),
        ("class Model:\n    def __call__(self, mini_batch): pass\nrun = Model()", False),
        ("class Model:\n    def __call__(self, mini_batch, context): pass\nrun = Model()", True),
        ("class Model:\n    def run(self, mini_batch): pass\nrun = Model().run", False),
        ("class Model:\n    def run(self, mini_batch, context): pass\nrun = Model().run", True),
        ("import functools\ndef f(model, mini_batch): pass\nrun = functools.partial(f, 'm')", False),
        ("import functools\ndef f(model, mini_batch, context): pass\nrun = functools.partial(f, 'm')", True),
        ("import functools\ndef f(mini_batch, model): pass\nrun = functools.partial(f, model='m')", False),
        (
            "import functools\ndef logged(f):\n    @functools.wraps(f)\n    def wrapper(*args):\n"
            "        return f(*args)\n    return wrapper\n@logged\ndef run(mini_batch): pass",
            False,
        ),
    ],
)
def test_the_context_is_given_where_a_second_positional_argument_is_taken(
    load: Load, text: str, takes_context: bool
) -> None:
    assert load(text).takes_context is takes_context


def test_the_context_has_the_attributes_that_scripts_expect() -> None:
    context = MiniBatchContext(7, 2)

    assert (context.minibatch_index, context.retry_count) == (7, 2)
    assert (context.partition_key_value, context.dataset, context.global_row_index_lower_bound) == (None, None, None)
    assert repr(context) == "MiniBatchContext(minibatch_index=7, retry_count=2)"


# The mini-batch


@given(st.lists(st.binary(min_size=1).filter(lambda name: b"\0" not in name), min_size=1), st.integers(0, 2**30 - 1))
def test_a_mini_batch_is_a_list_of_paths_whatever_their_bytes(names: list[bytes], number: int) -> None:
    batch = file_mini_batch(memoryview(b"\0".join(names)), number)

    assert isinstance(batch, MiniBatch)
    assert isinstance(batch, list)
    assert [os.fsencode(path) for path in batch] == names
    assert all(type(path) is str for path in batch)
    assert batch.task_id == str(number)


def test_another_interpreter_gets_a_plain_list() -> None:
    sent = pickle.dumps(file_mini_batch(memoryview(b"/a\0/b"), 3))
    assert b"mpi_prs" not in sent
    assert pickle.loads(sent) == ["/a", "/b"]


def test_a_file_with_a_name_that_is_not_text_can_be_opened_by_its_path(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9\n.txt"
    with open(name, "wb") as file:
        file.write(b"content")

    (path,) = file_mini_batch(memoryview(name), 0)
    with open(path, "rb") as file:
        assert file.read() == b"content"


# Tracebacks


def caught_in(call: Callable[..., object], *arguments: object) -> BaseException:
    """What it raises, without this file's own frames: in the user process whatever calls the script is ours."""
    with pytest.raises(BaseException) as caught:
        call(*arguments)
    frames: types.TracebackType | None = caught.value.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return caught.value.with_traceback(frames)


def test_the_traceback_starts_at_the_script(load: Load, tmp_path: Path) -> None:
    script = load("def run(mini_batch):\n    return helper()\ndef helper():\n    raise ValueError('too dark')\n")

    lines = user_traceback(caught_in(script.run, [])).splitlines()

    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{tmp_path / "my_entry_script.py"}", line 2, in run'
    assert lines[-1] == "ValueError: too dark"
    assert "mpi_prs" not in "\n".join(lines).replace(str(tmp_path), "")


def test_the_traceback_of_an_import_starts_at_the_script(load: Load, tmp_path: Path) -> None:
    (tmp_path / "broken_helper.py").write_text("1 / 0")
    lines = user_traceback(caught_in(load, "import broken_helper")).splitlines()

    assert lines[1] == f'  File "{tmp_path / "my_entry_script.py"}", line 1, in <module>'
    assert f'  File "{tmp_path / "broken_helper.py"}", line 1, in <module>' in lines
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_a_syntax_error_is_shown_with_its_place_and_nothing_of_ours(load: Load, tmp_path: Path) -> None:
    lines = user_traceback(caught_in(load, "def run(:\n    pass")).splitlines()

    assert lines[0] == f'  File "{tmp_path / "my_entry_script.py"}", line 1'
    assert lines[-1].startswith("SyntaxError: ")


def test_causes_are_shown_as_python_shows_them(load: Load) -> None:
    script = load(
        "def run(b):\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n        raise OSError() from e"
    )

    text = user_traceback(caught_in(script.run, []))

    assert (
        text.index("ZeroDivisionError") < text.index("The above exception was the direct cause") < text.index("OSError")
    )


def test_an_exception_that_cannot_be_printed_is_shown_all_the_same(load: Load) -> None:
    script = load("class Odd(Exception):\n    def __str__(self): raise TypeError\ndef run(b): raise Odd()")

    assert "in run" in user_traceback(caught_in(script.run, []))
