"""The plugin as a container runtime starts it: its one file, a configuration, and other plugins played by scripts.

Owns the directories it works in. Must not know what a test expects.
"""

import json
import subprocess
import sys
from pathlib import Path

from udpbackend.cni import bundle

ENV4 = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n"
VERSION = "1.2.3"


def write_program(folder):
    """The plugin's file, under its usual name."""
    path = folder / "flannel"
    path.write_bytes(bundle.build(VERSION))
    path.chmod(0o755)
    return path


class Plugin:
    """The plugin's file with a network configuration, a data directory and a directory of other plugins."""

    def __init__(self, program, folder):
        self.program = program
        self.folder = folder
        self.others = folder / "bin"
        self.others.mkdir()
        (folder / "subnet.env").write_text(ENV4)
        self.config = {
            "name": "n",
            "cniVersion": "0.3.1",
            "subnetFile": str(folder / "subnet.env"),
            "dataDir": str(folder / "data"),
        }
        self.environ = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": str(folder / "none"),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": f"{folder}/empty:{self.others}",
        }

    @property
    def state(self):
        return self.folder / "data" / "c1"

    def other(self, text, name="bridge"):
        """Writes a plugin that ends with these lines of shell; it keeps its input and its environment."""
        path = self.others / name
        path.write_text(f"#!/bin/sh\ncat >{self.folder}/{name}.in\nenv >{self.folder}/{name}.env\n{text}\n")
        path.chmod(0o755)

    def given(self, name="bridge"):
        """What the other plugin was given, None if it was not run."""
        path = self.folder / f"{name}.in"
        return path.read_bytes() if path.exists() else None

    def run(self, command, config=None, **environ):
        """Exit status, standard output and standard error; a variable of None is unset."""
        config = self.config if config is None else config
        variables = {**self.environ, "CNI_COMMAND": command, **environ}
        done = subprocess.run(
            [self.program],
            input=config if isinstance(config, bytes) else json.dumps(config).encode(),
            env={name: value for name, value in variables.items() if value is not None},
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def fails(self, command, config=None, **environ):
        """Code, message and details of the error, which has the form of Go's."""
        status, out, _ = self.run(command, config, **environ)
        found = json.loads(out)
        assert status == 1
        assert out == json.dumps(found, indent=4, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")
        assert list(found) in (["code", "msg"], ["code", "msg", "details"])
        return found["code"], found["msg"], found.get("details", "")
