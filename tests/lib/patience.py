# SPDX-License-Identifier: Apache-2.0
"""How long tests wait for what should come at once: longer where a sanitizer makes everything slow."""
import os

FACTOR = int(os.environ.get("SPINDLE_TIMEOUT_FACTOR", "1"))


def patience(seconds):
    return FACTOR * seconds
