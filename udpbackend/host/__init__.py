"""What we read from and write into the host: links, addresses, routes. All netlink goes through one thread."""
