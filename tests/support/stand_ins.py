"""Programs that stand in for others which cannot be installed where the tests run: Apptainer and conda.

They check how they are called, note it down, and do as little of the real thing as shows whether our side works. What
the real ones do with our calls, they do not tell.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_APPTAINER = '''#!{python} -IS
"""Like Apptainer, it stays the parent of what it runs, in a user namespace of its own, and passes signals on."""
import ctypes, json, os, signal, sys

def note(**fields):
    with open({notes!r}, "a") as file:
        print(json.dumps(fields), file=file)

arguments = sys.argv[1:]
if arguments[0] == "pull":
    note(pull=arguments[1:])
    destination, url = arguments[1:]
    if "no-such-image" in url:
        print("FATAL:   While making image from oci registry: manifest unknown", file=sys.stderr)
        sys.exit(255)
    print("INFO:    Converting OCI blobs to SIF format", file=sys.stderr)
    with open(destination, "x") as file:
        file.write(url)
    sys.exit()
assert arguments[:2] == ["--quiet", "exec"], arguments
binds, options, rest = [], [], arguments[2:]
while rest[0].startswith("-"):
    name = rest.pop(0)
    if name == "--bind":
        folder = rest.pop(0).split(":")[0]
        assert os.path.exists(folder), folder
        binds.append(folder)
    elif name == "--env":
        key, _, value = rest.pop(0).partition("=")
        os.environ[key] = value
    elif name not in ("--nv", "--rocm"):
        raise SystemExit("unknown flag: " + name)
image, program, *inside = rest
assert os.path.exists(image), image
note(exec=image, program=program, binds=binds, inside=inside)
python = {{"python3": {inner!r}}}.get(program)
if python is None:
    print("FATAL:   stat " + program + ": no such file or directory", file=sys.stderr)
    sys.exit(255)
uid, gid = os.getuid(), os.getgid()
child = os.fork()
if not child:
    if {namespace!r}:
        if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):  # CLONE_NEWUSER
            raise OSError(ctypes.get_errno(), "unshare")
        for name, line in (("setgroups", "deny"), ("uid_map", f"{{uid}} {{uid}} 1"), ("gid_map", f"{{gid}} {{gid}} 1")):
            with open("/proc/self/" + name, "w") as file:
                file.write(line)
    os.execv(python, [python, *inside])
for number in range(1, signal.SIGRTMAX + 1):
    if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
        try:
            signal.signal(number, lambda number, frame: os.kill(child, number))
        except (OSError, ValueError):
            pass
_, status = os.waitpid(child, 0)
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) != signal.SIGKILL else None
    os.kill(os.getpid(), os.WTERMSIG(status))
sys.exit(os.WEXITSTATUS(status))
'''

_CONDA = '''#!{python} -I
"""Makes a virtual environment without anything in it, where conda would install packages."""
import json, os, subprocess, sys, venv

arguments = sys.argv[1:]
with open({notes!r}, "a") as file:
    print(json.dumps(arguments), file=file)
if arguments[:2] == ["env", "export"]:
    if arguments[2:4] != ["--name", "there"]:
        print("EnvironmentLocationNotFound: Not a conda environment: " + arguments[3], file=sys.stderr)
        sys.exit(1)
    print("name: there\\nchannels: [conda-forge]\\ndependencies:")
    print("- python=3.10.4\\n- numpy=1.23\\n- pip:\\n  - iniconfig==2.0.0")
    print("variables: {{A: b}}\\nprefix: /opt/conda/envs/there")
    sys.exit()
verb = 1 if os.path.basename(sys.argv[0]) == "micromamba" else 2
assert arguments[:verb] == ["env", "create"][-verb:], arguments
prefix, file = arguments[verb + 1], arguments[verb + 3]
assert arguments[verb::2] == ["--prefix", "--file"], arguments
assert not os.path.exists(prefix), prefix
text = open(file).read()
print("Solving environment: ...working... done")
if "no-such-package" in text:
    print("ResolvePackageNotFound:\\n  - no-such-package")
    sys.exit(1)
venv.create(prefix, with_pip=False, symlinks=True)
'''


def apptainer(path: Path, *, namespace: bool = False) -> Path:
    """A program to be called as Apptainer; what is inside an image is this Python, whichever the image.

    Args:
        path: where to put it; its notes are beside it.
        namespace: change the user namespace, as Apptainer does that is not installed setuid.
    """
    text = _APPTAINER.format(
        python=_real_python(), notes=str(_notes(path)), inner=sys.executable, namespace=int(namespace)
    )
    return _program(path, text)


def conda(path: Path) -> Path:
    """A program to be called as conda, mamba or micromamba."""
    return _program(path, _CONDA.format(python=_real_python(), notes=str(_notes(path))))


def notes_of(path: Path) -> list[Any]:
    """How a stand-in was called so far."""
    notes = _notes(path)
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def _notes(path: Path) -> Path:
    return path.with_name(f"{path.name}.notes")


def _real_python() -> str:
    """A short path for the first line of a script: the system takes no long one."""
    return str(Path(sys.executable).resolve())


def _program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path
