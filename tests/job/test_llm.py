"""The examples for language models, as whole jobs: a stand-in engine, a real small server, and the page's own code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.jobs import REPOSITORY, need

pytestmark = pytest.mark.job

PROMPTS = [json.loads(line) for line in (REPOSITORY / "configs/prompts/prompts.jsonl").read_text().splitlines()]
PAGE = (REPOSITORY / "docs" / "llm.md").read_text(encoding="utf-8")


def run(config: Path, output: Path, *options: str, processes: int = 1, **environment: str) -> list[dict[str, Any]]:
    """The rows of a job on this machine, by id."""
    command = [sys.executable, "-m", "mpi_prs", "run", str(config), "--local", str(processes), "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    done = subprocess.run(
        [*command, *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (output / "answers.jsonl").read_text().splitlines()]
    return sorted(rows, key=lambda row: row["id"])


ANSWERS = [{**each, "answer": each["prompt"].upper()} for each in PROMPTS]


def test_an_engine_gets_prompts_of_several_mini_batches_at_once(tmp_path: Path) -> None:
    assert run(REPOSITORY / "configs/generate.yaml", tmp_path / "out") == ANSWERS
    (log,) = (tmp_path / "out").glob("_run/logs/user/stdout/*/process000.stdout.txt")
    at_once = re.search(r"at most (\d+) prompts at once", log.read_text())
    assert at_once is not None
    assert int(at_once[1]) > 2, "a mini-batch has two"


class Server(ThreadingHTTPServer):
    """Says the prompt in capitals; busy now and then, and away once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.answered: Counter[int] = Counter()
        self.under_way = self.most = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            turn = sum(server.answered.values())
            status = 503 if turn < 2 else 429 if turn % 5 == 0 else 200
            server.answered[status] += 1
            server.under_way += 1
            server.most = max(server.most, server.under_way)
        time.sleep(0.02)
        with server.lock:
            server.under_way -= 1
        assert self.path == "/v1/generate"
        assert self.headers["Authorization"] == "Bearer secret"
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0.05")
        self.end_headers()
        if status == 200:
            self.wfile.write(json.dumps({"text": body["prompt"].upper()}).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_model_behind_http_that_is_busy_is_asked_again(server: Server, tmp_path: Path) -> None:
    for package in ("httpx", "tenacity"):
        if find_spec(package) is None:
            need(f"{package} beside this Python: make test installs it")
    arguments = ["--url", f"http://127.0.0.1:{server.server_port}/v1/", "--rate", "200", "--at-once", "3"]
    config = REPOSITORY / "configs/remote_model.yaml"
    rows = run(config, tmp_path / "out", "--set", f"arguments={json.dumps(arguments)}", MODEL_API_KEY="secret")
    assert rows == ANSWERS
    assert server.answered[200] == len(PROMPTS)
    assert server.answered[503] == 2
    assert server.answered[429] > 0
    assert 1 < server.most <= 3


# The page

STAND_INS = {
    "vllm": """
        import asyncio
        from types import SimpleNamespace

        def said(prompt):
            assert prompt != "Sum up"
            return SimpleNamespace(outputs=[SimpleNamespace(text=prompt.upper())])

        class SamplingParams:
            def __init__(self, temperature, max_tokens): pass

        class LLM:
            def __init__(self, model, tensor_parallel_size):
                print("model", model, "on", tensor_parallel_size)

            def generate(self, prompts, sampling_params):
                return [said(prompt) for prompt in prompts]

        class AsyncEngineArgs:
            def __init__(self, model, tensor_parallel_size):
                print("model", model, "on", tensor_parallel_size)

        class AsyncLLMEngine:
            @classmethod
            def from_engine_args(cls, engine_args):
                return cls()

            def __init__(self):
                self.names = set()

            async def generate(self, prompt, sampling_params, request_id):
                assert request_id not in self.names
                self.names.add(request_id)
                for end in range(1, len(prompt) + 1):
                    await asyncio.sleep(0)
                    yield said(prompt[:end])
        """,
    "transformers": """
        def pipeline(task, model, device_map, dtype):
            print("model", model, "on", 2)
            def generate(prompts, **options):
                assert "Sum up" not in prompts
                return [[{"generated_text": prompt.upper()}] for prompt in prompts]
            return generate
        """,
}


@pytest.mark.parametrize(
    "text", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), ids=["vllm", "async-vllm", "transformers"]
)
def test_the_code_of_the_page_generates_with_k_gpus_a_process(text: str, tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text(text)
    for name, stand_in in STAND_INS.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(stand_in))
    (config,) = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    config["inputs"] = [{"table": str(REPOSITORY / "configs/prompts/*.jsonl")}]
    config |= {"mini_batch_size": "3rows", "run_max_try": 1, "bisect_on_failure": True}
    config["slurm"]["gpus_per_process"] = 2
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "out"
    assert run(tmp_path / "job.yaml", out, processes=2, CUDA_VISIBLE_DEVICES="0,1,2,3") == [
        answer for answer in ANSWERS if answer["prompt"] != "Sum up"
    ]
    logs = [path.read_text() for path in out.glob("_run/logs/user/stdout/*/*.txt")]
    assert len(logs) == 2
    # The other one may still load its model when all is done.
    assert any("model /project/models/llama-70b on 2" in log for log in logs)
    assert {gpus[1] for log in logs if (gpus := re.search(r"GPUs ([\d,]+),", log))} == {"0,1", "2,3"}
