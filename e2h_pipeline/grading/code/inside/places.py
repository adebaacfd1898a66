"""Where Python lies on this host."""

from __future__ import annotations

import os
import sysconfig


def python_folders() -> list[str]:
    """Folders that Python's own modules and the libraries behind them are in."""
    paths = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    libraries = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
    own = sysconfig.get_config_var("LIBDIR") if sysconfig.get_config_var("Py_ENABLE_SHARED") else None
    return [path for path in dict.fromkeys((*paths, own, *libraries)) if path and os.path.isdir(path)]
