"""Sub-commands of `udp-backend`, one file each."""
