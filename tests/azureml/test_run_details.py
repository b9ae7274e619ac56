"""``RunDetails``: what is shown of a run, in a terminal and in a real notebook; nothing in it can be more than text."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mpi_prs.azureml.definition.data import PipelineData
from mpi_prs.azureml.runs import details
from mpi_prs.azureml.runs.details import RunDetails, RunView, StepView, as_html, as_text
from mpi_prs.core.errors import PipelineError
from tests.support.experiments import NAMES, WAITING, Lab, items, marked_processes
from tests.support.jobs import wait_until

EVIL = "<script>alert('x')</script> & \"<img src=http://evil>\""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    for processes in marked_processes(tmp_path, monkeypatch):
        yield Lab(tmp_path, processes)


def view(text: str = "text", state: str = "Running") -> RunView:
    facts = {"mini-batches": "1 of 4", "throughput": text}
    steps = (StepView(text, state, text, 0.25, facts), StepView("second", "NotStarted", "waits", None, {}))
    return RunView(text, text, state, steps, (text, text), text, text, text)


class Tags(HTMLParser):
    """Collects the tags, and what is in their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_nothing_that_is_shown_can_be_more_than_text() -> None:
    html = as_html(view(EVIL, state=f"Running{EVIL}"))
    found = Tags(html)
    assert found.open == []
    assert found.tags <= {"div", "b", "code", "span", "table", "tr", "td", "br", "pre"}
    assert found.attributes == {"style"}
    assert EVIL in "".join(found.texts)
    assert not re.search(r"url\(|@import|src=http", re.sub(r"&lt;.*?&gt;", "", html))


@pytest.mark.parametrize("state", ["Running", "Completed", "Failed", "Canceled", "Queued"])
def test_a_view_has_the_same_facts_as_html_and_as_text(state: str) -> None:
    shown = "Finished" if state == "Completed" else state
    html, text = as_html(view(state=state)), as_text(view(state=state))
    for word in (shown, "25 %", "mini-batches 1 of 4", "second", "NotStarted", "waits"):
        assert word in html
        assert word in text
    assert "width:25.0%" in html
    assert "[######------------------]" in text


@pytest.mark.job
def test_in_a_terminal_it_is_printed_once(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    output = PipelineData("out")
    run = lab.submit(
        lab.step("waiting", WAITING, [lab.files()], output, arguments=[str(lab.go)]),
        lab.step("names", NAMES, [output.as_dataset()], PipelineData("names")),
    )
    [step, _] = run.get_steps()
    wait_until(lambda: "at work" in step.get_stdout_log(), 60)
    capsys.readouterr()
    details = RunDetails(run)
    details.show(render_lib=None, widget_settings={})
    said = capsys.readouterr().out
    assert f"tests  {run.id}: Running" in said
    assert "  waiting: Running" in said
    assert "  names: NotStarted  waits for the step waiting" in said
    assert re.search(r"\[-{24}\] 0 %  mini-batches 0 of 3", said)
    assert re.search(r"  \| [\d:]{8}  6 items in 3 mini-batches", said)
    assert details._thread is None
    RunDetails(step).show()
    assert "names: NotStarted" not in capsys.readouterr().out
    lab.go.touch()
    run.wait_for_completion(show_output=False)
    RunDetails(run).show()
    said = capsys.readouterr().out
    assert f"{run.id}: Finished" in said
    assert "items         6 ok, 0 failed" in said
    assert str(run.folder) in said


@pytest.mark.job
def test_a_failure_is_shown_with_the_users_traceback(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    run = lab.submit(lab.step("bad", "def run(mini_batch):\n    raise ValueError('<no>')\n", [lab.files()]))
    run.wait_for_completion(show_output=False, raise_on_error=False)
    capsys.readouterr()
    RunDetails(run).show()
    assert "ValueError: <no>" in capsys.readouterr().out
    assert "ValueError: &lt;no&gt;" in as_html(RunDetails(run)._view())
    with pytest.raises(PipelineError, match="RunDetails shows a PipelineRun or a StepRun, but got int"):
        RunDetails(3)
    with pytest.raises(PipelineError, match="but got Run; of other runs"):
        RunDetails(lab.experiment.start_logging())


def test_where_ipython_is_not_loaded_nobody_loads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", None)
    assert details._jupyter_display() is None


NOTEBOOK = [
    """
from mpi_prs.azureml.definition.data import PipelineData
from mpi_prs.azureml.runs.details import RunDetails
from tests.support.experiments import *
lab = Lab.at({folder!r})
step = lab.step("waiting", WAITING, [lab.files()], PipelineData("out"), arguments=[str(lab.go)])
run = lab.submit(step, show_output=False)
""",
    """
details = RunDetails(run)
details.show()
""",
    """
before = run.get_status()
lab.go.touch()
run.wait_for_completion(show_output=True)
details._thread.join(60)
print(before, details._thread.is_alive())
""",
]


@pytest.mark.job
def test_in_a_notebook_it_lives_until_the_run_is_over(lab: Lab) -> None:
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(cell.format(folder=str(lab.folder))) for cell in NOTEBOOK]
    seen: list[str] = []

    class Client(NotebookClient):  # type: ignore[misc]
        def process_message(self, msg: dict[str, object], cell: object, cell_index: int) -> object:
            if msg["msg_type"] == "update_display_data":
                seen.append(msg["content"]["data"]["text/html"])  # type: ignore[index]
            return super().process_message(msg, cell, cell_index)

    Client(book, timeout=120, kernel_name="python3").execute(cwd=str(Path(__file__).parents[2]))
    [shown] = book.cells[1].outputs
    assert shown["output_type"] == "display_data"
    html = shown["data"]["text/html"]
    assert "Finished" in html
    assert "3 of 3" in html
    assert "6 ok, 0 failed" in html
    assert "width:100.0%" in html
    assert seen, "nothing was updated"
    assert "".join(output["text"] for output in book.cells[2].outputs).endswith(" False\n")
    [run] = lab.experiment.get_runs()
    assert lab.rows(run, "waiting") == items()
