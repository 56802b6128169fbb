"""Where the plugin's one file begins. Any Python 3 can read these lines, so that one that is too old is told so."""

import sys

TOO_OLD = """{
    "code": 999,
    "msg": "the CNI plugin of udp-backend needs python3 3.9 or newer on this host: %s is %d.%d"
}"""

if sys.version_info < (3, 9):  # noqa: UP036 the host's Python, not ours
    sys.stdout.write(TOO_OLD % ((sys.executable,) + sys.version_info[:2]))  # noqa: RUF005 for the same reason
    sys.exit(1)

from udpbackend.cni.plugin import main  # noqa: E402 an older one cannot load it

sys.exit(main())
