"""What is wrong with this host, as far as the host itself can tell.

One file for each kind: pure functions from what was read to findings. The daemon looks while it runs and says so in
`status`, the doctor looks when it is asked; neither has words of its own for these.
"""
