"""What is running: the version, and whether the request path is compiled (hatch_build.py) or plain Python."""

from __future__ import annotations

from proxy import __version__, types

COMPILED = not types.__file__.endswith((".py", ".pyc"))
NAME = f"penstock {__version__}{' (compiled)' if COMPILED else ''}"
