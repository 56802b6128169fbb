"""What every test may rely on: the root of the checkout is importable, so that tests can use `bench.lab`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
