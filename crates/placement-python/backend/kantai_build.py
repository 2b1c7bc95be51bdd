"""maturin, told that a shared library is wanted.

The repository's .cargo/config.toml makes all programs static; flags in the environment replace those there.
"""

import os

os.environ.setdefault("RUSTFLAGS", "-C target-feature=-crt-static")

from maturin import *  # noqa: E402, F401, F403
