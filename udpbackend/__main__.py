"""`python -m udpbackend` is the same program as `udp-backend`."""

from udpbackend.cli import main

raise SystemExit(main())
