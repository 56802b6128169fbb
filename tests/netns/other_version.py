"""The daemon as another version that hands over in another way: every word but the first few would be strange to us.

    python other_version.py PROGRAM [ARGUMENT ...]

Must not change anything but the number of the format.
"""

import runpy
import sys

from udpbackend.dataplane import estate

estate.FORMAT += 1  # before anybody else has read it
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
