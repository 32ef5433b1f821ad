"""What Windows starts as the service: Python itself, with this file and the folder of relay's libraries.

pywin32's own host, pythonservice.exe, does not find a virtual environment's libraries (its issue 1450), and the python.exe of
one starts another process, which Windows does not take for the service. So the Python below it runs this file by its path; with
-I and -S, so that neither a user's environment nor that Python's own libraries come between.
"""

from __future__ import annotations

import importlib
import site
import sys


def main(folder: str) -> None:
    """Be the service; ``folder``: site-packages. Returns when the service has ended."""
    site.addsitedir(folder)  # as at Python's start, the .pth files of pywin32 included
    importlib.import_module("relay.winservice").host()


if __name__ == "__main__":
    main(sys.argv[1])
