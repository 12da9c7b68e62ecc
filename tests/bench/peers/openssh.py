"""OpenSSH: an sshd of our own on loopback, `-R` tunnels, a ControlMaster, terminals.

Own configuration, keys and port in the scratch directory; HOME is an empty folder there, so that no
start-up file of this machine counts.
"""

from __future__ import annotations

import getpass
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.peers.tunnel import TunnelPeer, Via, straight
from tests.bench.programs import HOST, Missing, Program, free_port, tool, wait_port
from tests.bench.targets import Ports

SERVER = """\
Port {port}
ListenAddress {host}
HostKey {directory}/host_key
PidFile none
AuthorizedKeysFile {directory}/user_key.pub
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
MaxStartups 200:30:300
MaxSessions 200
Subsystem sftp internal-sftp
SetEnv HOME={directory}/home
"""
CLIENT = """\
Host node
  HostName {host}
  Port {port}
  User {user}
  IdentityFile {directory}/user_key
  IdentitiesOnly yes
  StrictHostKeyChecking accept-new
  UserKnownHostsFile {directory}/known_hosts
  LogLevel ERROR
"""


def version() -> str | None:
    """As `ssh -V` says; None where there is none."""
    try:
        argv = [tool("ssh", "openssh-client"), "-V"]
    except Missing:
        return None
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stderr.split(",")[0].strip()


class OpenSSH:
    """A running sshd and how to reach it."""

    def __init__(self, scratch: Path, prefix: Sequence[str] = ()) -> None:
        """Start it.

        Args:
            scratch: where its files are made.
            prefix: stands before the command, to run it in another network.

        Raises:
            Missing: openssh-server or openssh-client isn't there.
        """
        sshd = tool("sshd", "openssh-server")
        self.ssh = tool("ssh", "openssh-client")
        keygen = tool("ssh-keygen", "openssh-client")
        self.directory = scratch / "openssh"
        (self.directory / "home").mkdir(mode=0o700, parents=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
        for name in ("host_key", "user_key"):
            argv = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(self.directory / name)]
            subprocess.run(argv, check=True)
        self.port = free_port()
        values = {"port": self.port, "host": HOST, "directory": self.directory}
        (self.directory / "sshd_config").write_text(SERVER.format(**values))
        config = CLIENT.format(**values, user=getpass.getuser())
        (self.directory / "ssh_config").write_text(config)
        argv = [*prefix, sshd, "-D", "-e", "-f", str(self.directory / "sshd_config")]
        self.server = Program(argv, scratch / "sshd.log")
        self._wait_listening()

    def command(self, *arguments: str) -> list[str]:
        """An `ssh` that uses our configuration; the host is called `node`."""
        return [self.ssh, "-F", str(self.directory / "ssh_config"), *arguments]

    @contextmanager
    def tunnel(
        self, name: str, targets: Ports, cipher: str | None = None, via: Via = straight
    ) -> Iterator[TunnelPeer]:
        """A reverse tunnel: the ssh client is the agent, sshd listens on the local ports."""
        local = Ports(free_port(), free_port(), free_port())
        argv = ["-N", "-o", "ExitOnForwardFailure=yes", *(["-c", cipher] if cipher else [])]
        argv += ["-p", str(via(self.port))]
        for here, there in zip(local, targets, strict=True):
            argv += ["-R", f"{HOST}:{here}:{HOST}:{there}"]
        before = set(self.server.pids())
        agent = Program(self.command(*argv, "node"), self.directory / f"{local.echo}.log")
        try:
            wait_port(local.echo, agent)
            ours = sorted(set(self.server.pids()) - before)
            yield TunnelPeer(name, local, lambda: ours, agent.pids)
        finally:
            agent.stop()

    @contextmanager
    def master(self) -> Iterator[list[str]]:
        """Hold a ControlMaster; yields the command that runs things over it.

        Raises:
            Missing: it did not come up.
        """
        socket = self.directory / "master"
        argv = self.command("-N", "-M", "-S", str(socket), "node")
        program = Program(argv, self.directory / "master.log")
        over = self.command("-S", str(socket), "node")
        try:
            for _ in range(50):
                check = [*over[:-1], "-O", "check", "node"]
                if subprocess.run(check, capture_output=True, timeout=10).returncode == 0:
                    break
                program.check()
                time.sleep(0.1)
            else:
                raise Missing("no ControlMaster in 5 s")
            yield over
        finally:
            program.stop()

    def _wait_listening(self) -> None:
        """Wait for the word of it: its port may be in a network where we are not."""
        for _ in range(300):
            if "Server listening" in self.server.log.read_text(errors="replace"):
                return
            self.server.check()
            time.sleep(0.1)
        raise Missing("sshd did not listen in 30 s")

    def stop(self) -> None:
        """End the server and its connections."""
        self.server.stop()
