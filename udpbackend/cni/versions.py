"""The versions of the CNI specification that the plugin speaks.

Below all that asks for them: the answer to VERSION must not load the rest, and the rest must not load the front door.
"""

from __future__ import annotations

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Oldest first."""
