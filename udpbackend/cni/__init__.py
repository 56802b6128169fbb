"""The CNI plugin: hangs a pod on the bridge of its node, with this node's subnet and MTU from `subnet.env`.

A program of its own that a container runtime starts for each pod and waits for. On a host it is one file (`bundle`)
that is run by whatever python3 stands there, 3.9 or newer; so the files here use the standard library only, nothing of
the rest of udpbackend but its version, and no syntax or library that is younger. What costs time to import (typing,
dataclasses, subprocess, argparse) is not imported.

    plugin       the front door: VERSION, and what a person who runs it by hand is told
    commands     ADD, DEL, CHECK, STATUS, GC: which may run, and the error at the end
    request      what the runtime asks: environment and standard input, checked
    attachment   ADD, CHECK and DEL
    upkeep       STATUS and GC
    delegate     the configuration of the plugin that does the work (pure)
    subnetenv    subnet.env as flannel's plugin reads it
    state        what was delegated, kept for DEL
    invoke       finding and running another plugin
    jsontext     JSON as Go prints it (pure)
    errors       the error a runtime is shown
    bundle       all of it as one file; stays at home itself
"""
