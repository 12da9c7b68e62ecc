"""Serves one `pty` stream: a shell or a command on a terminal of its own.

What the terminal writes is read only as fast as the stream takes it, and at most 64 KiB of it wait
here, so that Ctrl-C under a flood is felt at once. Echoes leave at once; under a flood pieces are
gathered for up to 4 ms or 32 KiB. When the stream or the shell ends, every
process of the terminal's session ends too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import TypeAlias, assert_never

from ptyprocess import PtyProcess, PtyProcessError

from edge_agent.commands.argv import NotStarted, resolve_argv, start_directory
from edge_agent.policy import PolicyFile, Refused
from edge_agent.processes import Process, end_session, find_process, wait_end
from edge_agent.users import Account, CannotBecome, UnknownUser, environment, find_account
from protocol.aio import (
    Channel,
    RemoteProtocolError,
    ResetCode,
    Stream,
    StreamReset,
    TunnelClosed,
)
from protocol.messages import Pty
from protocol.record_types import Exited, Input, PtyFromHub, PtyFromNode, Resize, Screen

_log = logging.getLogger(__name__)

_BUFFER = 64 * 1024
_READ = 8 * 1024  # the kernel gives about 4 KiB at a time
_PIECE = 32 * 1024
_GATHER_S = 0.004
_FLOOD = 1024
"""Output is gathered only after a piece of at least this size: echoes always leave at once."""
_RESTORED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGPIPE", "SIGTERM", "SIGXFSZ")
"""Signals that Python or whoever started the agent may ignore, and no shell expects to be."""
_GRACE_S = 1.0
"""Between SIGHUP and SIGKILL for what is left of the session."""
_Channel: TypeAlias = Channel[PtyFromNode, PtyFromHub]


async def handle_pty(opening: Pty, stream: Stream, policy: PolicyFile) -> None:
    """Serve one `pty` stream until its shell ended or the stream did."""
    channel: _Channel = Channel(stream, PtyFromHub)
    try:
        account = await find_account(opening.user)
        policy.current().allow_shell(account.name)
        terminal = Terminal(await asyncio.to_thread(_spawn, opening, account))
    except (Refused, CannotBecome) as error:
        stream.reset(ResetCode.REFUSED, str(error))
    except NotStarted as error:
        await channel.send(_not_started(error.exit_code, error.detail))
    except (UnknownUser, OSError) as error:
        await channel.send(_not_started(126, str(error)))
    else:
        await _serve(terminal, channel)


async def _serve(terminal: Terminal, channel: _Channel) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(terminal.watch())
            typing = tasks.create_task(_type(terminal, channel))
            while data := await terminal.read():
                await channel.send(Screen(data=data))
            await watching
            await terminal.end()
            await channel.send(terminal.outcome())
            channel.finish()
            typing.cancel()
    except* (StreamReset, TunnelClosed):
        pass
    except* RemoteProtocolError as errors:
        _log.warning("terminal: %s", errors.exceptions[0])  # the channel was reset
    finally:
        await terminal.end()  # also when the agent stops: no shell is left behind
        terminal.close()


async def _type(terminal: Terminal, channel: _Channel) -> None:
    """Carry out the hub's records; its FIN hangs the terminal up."""
    while (record := await channel.receive()) is not None:
        match record:
            case Input():
                await terminal.write(record.data)
            case Resize():
                terminal.resize(record.rows, record.columns)
            case _:
                assert_never(record)
    await terminal.end()


class Terminal:
    """A PTY and the session on it, read and written without blocking the event loop."""

    def __init__(self, child: PtyProcess) -> None:
        process = find_process(child.pid)
        assert process is not None, "a child that nobody waited for is in /proc"
        self._child = child
        self._process: Process = process
        self._fd: int = child.fd
        self._loop = asyncio.get_running_loop()
        self._output = bytearray()
        self._grown = asyncio.Event()
        self._is_reading = False
        self._is_hung_up = False  # nothing more can be read
        self._shell_ended = False
        self._was_killed = False
        self._gather_until = 0.0
        os.set_blocking(self._fd, False)
        self._resume_reading()

    async def watch(self) -> None:
        """Wait for the end of the shell, after which `read` only gives what is left."""
        await wait_end(self._process)
        self._shell_ended = True
        self._grown.set()

    async def read(self) -> bytes:
        """Return what the terminal wrote, at most 32 KiB; `b""` once its shell has ended."""
        while not self._output and not self._is_hung_up:
            if self._shell_ended:
                self._readable()  # what the shell wrote last; its children don't hold us up
                break
            self._grown.clear()
            await self._grown.wait()
        if self._is_hung_up and not self._output:
            return b""
        if self._loop.time() < self._gather_until:
            await self._gather()
        piece = bytes(self._output[:_PIECE])
        self._gather_until = self._loop.time() + _GATHER_S if len(piece) >= _FLOOD else 0.0
        del self._output[:_PIECE]
        self._resume_reading()
        return piece

    async def write(self, data: bytes) -> None:
        """Type; waits while the terminal takes no more. A dead terminal loses it."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                await self._writable()
            except OSError:
                return

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; the kernel tells its foreground processes."""
        with contextlib.suppress(OSError):
            self._child.setwinsize(rows, columns)

    async def end(self) -> None:
        """Hang up and make sure that no process of the session is left."""
        self._was_killed = self._was_killed or self._process.is_alive()
        if not await end_session(self._process, first=signal.SIGHUP, grace_s=_GRACE_S):
            _log.error("processes of terminal session %d can't be killed", self._process.pid)

    def outcome(self) -> Exited:
        """Return how the shell ended, after `watch`."""
        self._child.isalive()  # takes the status from the kernel
        return Exited(
            exit_code=self._child.exitstatus,
            signal=self._child.signalstatus,
            reason="killed" if self._was_killed else "",
        )

    def close(self) -> None:
        """Close the terminal, after `end`."""
        self._hang_up()
        self._child.delayafterclose = self._child.delayafterterminate = 0
        try:
            self._child.close(force=False)
        except (OSError, PtyProcessError):
            _log.exception("terminal session %d", self._process.pid)

    async def _gather(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._gather_until):
                while len(self._output) < _PIECE and not (self._is_hung_up or self._shell_ended):
                    self._grown.clear()
                    await self._grown.wait()

    def _readable(self) -> None:
        try:
            while len(self._output) < _BUFFER:
                data = os.read(self._fd, _READ)
                if not data:
                    break
                self._output += data
        except BlockingIOError:
            pass
        except OSError:  # EIO: nobody has the terminal open any more
            self._hang_up()
        if len(self._output) >= _BUFFER:
            self._pause_reading()
        self._grown.set()

    def _resume_reading(self) -> None:
        if not self._is_reading and not self._is_hung_up:
            self._is_reading = True
            self._loop.add_reader(self._fd, self._readable)

    def _pause_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._fd)

    def _hang_up(self) -> None:
        self._is_hung_up = True
        self._pause_reading()
        self._grown.set()

    async def _writable(self) -> None:
        writable = asyncio.Event()
        self._loop.add_writer(self._fd, writable.set)
        try:
            await writable.wait()
        finally:
            self._loop.remove_writer(self._fd)


def _spawn(opening: Pty, account: Account) -> PtyProcess:
    """Start what was asked for on a new terminal; blocks until it was executed.

    Between fork and exec nothing may raise what ptyprocess doesn't catch, or a copy of the agent
    would run on in the child. So everything is checked before, and the directory is changed in the
    function whose errors it reports.
    """
    directory = start_directory(opening.cwd, account)
    env = environment(account, opening.env, term="xterm-256color")
    argv = resolve_argv(opening.argv or [account.shell, "-l"], directory, env)
    argv[0] = str(directory / argv[0])  # an absolute one stays as it is

    def become() -> None:
        for name in _RESTORED:
            signal.signal(signal.Signals[name], signal.SIG_DFL)
        if not account.is_own:
            os.setgroups(account.groups)
            os.setgid(account.gid)
            os.setuid(account.uid)
        os.umask(0o022)
        os.chdir(directory)

    return PtyProcess.spawn(
        argv,
        env=env,
        preexec_fn=become,
        dimensions=(opening.rows, opening.columns),
    )


def _not_started(exit_code: int, detail: str) -> Exited:
    return Exited(exit_code=exit_code, reason="not_started", detail=detail[:4096])
