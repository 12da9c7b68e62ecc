"""Nodes behind a masquerading router, in network namespaces that are made and removed here.

hub 10.77.0.1 --- 10.77.0.254 router 192.168.77.254 --- a 192.168.77.2, b 192.168.77.3 … The hub has
no route to 192.168.77.0/24; the router lets nothing in that was not asked for from inside, and
says nothing about what it has forgotten.
"""

from __future__ import annotations

import os
import shutil
import subprocess

RULES = """
table ip nat {{
  chain post {{ type nat hook postrouting priority 100; oifname "out" masquerade; }}
}}
table ip filter {{
  set silenced {{ type ipv4_addr; }}
  chain input {{ type filter hook input priority 0; policy drop; }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ip saddr @silenced drop
    ip daddr @silenced drop
    ct state invalid drop
    iifname "br0" accept
    ct state established,related accept
  }}
}}
"""


def why_not() -> str | None:
    """Why namespaces can't be used here; None when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "nft"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    name = f"moor{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces are not permitted here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


class Nat:
    """The laboratory; `close` removes it."""

    HUB_ADDRESS = "10.77.0.1"
    ROUTER_ADDRESS = "10.77.0.254"
    NODES = ("a", "b")

    def __init__(self, nodes: tuple[str, ...] = NODES) -> None:
        self.nodes = nodes
        self._made: list[str] = []
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def name(self, part: str) -> str:
        return f"moor{os.getpid()}{part}"

    def prefix(self, part: str) -> list[str]:
        """What to put before a command to run it there."""
        return ["ip", "netns", "exec", self.name(part)]

    def run(self, part: str, *argv: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*self.prefix(part), *argv], capture_output=True, text=True)
        assert code is None or done.returncode == code, (argv, done.stderr)
        return done

    def cut(self, node: str) -> None:
        """Pull a node's cable."""
        self.run("router", "ip", "link", "set", f"to-{node}", "down")

    def mend(self, node: str) -> None:
        """Put it back."""
        self.run("router", "ip", "link", "set", f"to-{node}", "up")

    def silence(self, node: str) -> None:
        """Drop every packet of a node, both ways, without a word to either side."""
        self._nft("add", node)

    def unsilence(self, node: str) -> None:
        """Let its packets pass again."""
        self._nft("delete", node)

    def readdress(self, node: str) -> None:
        """Give a node another address, as DHCP may."""
        number = self.nodes.index(node) + 2
        self.run(node, "ip", "addr", "del", f"192.168.77.{number}/24", "dev", "eth0")
        self.run(node, "ip", "addr", "add", f"192.168.77.{number + 100}/24", "dev", "eth0")
        self.run(node, "ip", "route", "add", "default", "via", "192.168.77.254")

    def forget(self) -> None:
        """Drop the router's translations: masquerading forgets those of an address that goes."""
        self.run("router", "ip", "addr", "del", f"{self.ROUTER_ADDRESS}/24", "dev", "out")
        self.run("router", "ip", "addr", "add", f"{self.ROUTER_ADDRESS}/24", "dev", "out")

    def throttle(self, node: str, rate: str) -> None:
        """Limit a node's link both ways, with half a second of queue."""
        shape = ("root", "tbf", "rate", rate, "burst", "16kb", "latency", "500ms")
        self.run("router", "tc", "qdisc", "add", "dev", f"to-{node}", *shape)
        self.run(node, "tc", "qdisc", "add", "dev", "eth0", *shape)

    def _nft(self, verb: str, node: str) -> None:
        element = f"{{ 192.168.77.{self.nodes.index(node) + 2} }}"
        self.run("router", "nft", verb, "element", "ip", "filter", "silenced", element)

    def close(self) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        self._made.clear()

    def _build(self) -> None:
        for part in ("hub", "router", *self.nodes):
            subprocess.run(["ip", "netns", "add", self.name(part)], check=True)
            self._made.append(self.name(part))
            self.run(part, "ip", "link", "set", "lo", "up")
        self._cable("hub", "eth0", "router", "out")
        self.run("hub", "ip", "addr", "add", f"{self.HUB_ADDRESS}/24", "dev", "eth0")
        self.run("router", "ip", "addr", "add", f"{self.ROUTER_ADDRESS}/24", "dev", "out")
        self.run("router", "ip", "link", "add", "br0", "type", "bridge")
        self.run("router", "ip", "link", "set", "br0", "up")
        self.run("router", "ip", "addr", "add", "192.168.77.254/24", "dev", "br0")
        for number, node in enumerate(self.nodes, start=2):
            self._cable(node, "eth0", "router", f"to-{node}")
            self.run("router", "ip", "link", "set", f"to-{node}", "master", "br0")
            self.run(node, "ip", "addr", "add", f"192.168.77.{number}/24", "dev", "eth0")
            self.run(node, "ip", "route", "add", "default", "via", "192.168.77.254")
        self.run("router", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        subprocess.run(
            [*self.prefix("router"), "nft", "-f", "-"],
            input=RULES.format(),
            text=True,
            check=True,
        )
        # A connection that the router has forgotten is not picked up in the middle.
        self.run("router", "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=0")

    def _cable(self, left: str, left_name: str, right: str, right_name: str) -> None:
        subprocess.run(
            ["ip", "link", "add", left_name, "netns", self.name(left), "type", "veth",
             "peer", "name", right_name, "netns", self.name(right)],
            check=True,
        )  # fmt: skip
        self.run(left, "ip", "link", "set", left_name, "up")
        self.run(right, "ip", "link", "set", right_name, "up")
