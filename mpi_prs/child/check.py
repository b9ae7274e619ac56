"""Import an entry script and say whether it has ``run``: for ``--dry-run``, in the user's own interpreter.

Started as ``python check.py`` with a JSON object on stdin, since a command line is seen by all users of the machine;
what is wrong goes to stderr. Standard library only.
"""

from __future__ import annotations

import json
import os
import sys

if __name__ == "__main__":
    _no_folder = getattr(sys.flags, "safe_path", False)
    sys.path[0 : not _no_folder] = [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))]

from mpi_prs.child.script import NoLoadFunction, NoRunFunction, import_script, prepare_interpreter, user_traceback
from mpi_prs.child.shims.preparation import prepare_imports


def main(text: str) -> int:
    """Returns the exit code."""
    settings = json.loads(text)
    prepare_interpreter(settings["entry_script"], settings["source_directory"], settings["arguments"])
    try:
        prepare_imports()
        import_script(settings["entry_script"], loads=settings["loads"])
    except (NoLoadFunction, NoRunFunction) as error:
        print(error, file=sys.stderr)
        return 1
    except BaseException as error:
        print(user_traceback(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    with open(0, "rb", closefd=False) as given:
        said = given.read().decode()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.exit(main(said))
