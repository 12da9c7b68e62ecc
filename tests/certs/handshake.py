"""A TLS handshake between two real contexts, without a socket: bytes are carried by hand."""

from __future__ import annotations

import ssl
from dataclasses import dataclass


@dataclass
class Side:
    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    done: bool = False
    error: ssl.SSLError | None = None

    def step(self) -> None:
        if self.error:
            return
        try:
            if self.done:
                self.tls.read(1)
            else:
                self.tls.do_handshake()
                self.done = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = error


def _side(context: ssl.SSLContext, *, server: bool) -> Side:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return Side(context.wrap_bio(incoming, outgoing, server_side=server), incoming, outgoing)


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[Side, Side]:
    """Run a handshake until nothing moves; errors stay on the side that saw them."""
    one, other = _side(client, server=False), _side(server, server=True)
    for _ in range(10):
        one.step()
        other.incoming.write(one.outgoing.read())
        other.step()
        one.incoming.write(other.outgoing.read())
    return one, other
