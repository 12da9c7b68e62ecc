#!/bin/sh
# Installs the Mooring agent on this machine, joins it to the hub below and starts it.
# Run again, it updates the agent and keeps its identity. Needs curl and Python 3.11 or newer.
#
#   MOORING_JOIN_TOKEN  the join token (required for the first time)
#   MOORING_NAME        the node's name; else the host name
#   MOORING_PYTHON      the Python to use
set -eu

HUB='@HUB@'
PIN='@PIN@'
WHEEL='@WHEEL@'

say() { printf 'mooring: %s\n' "$*"; }
fail() {
    printf 'mooring: %s\n' "$*" >&2
    exit 1
}

find_python() {
    for candidate in "${MOORING_PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "needs Python 3.11 or newer; install it (Debian, Ubuntu: apt-get install python3-venv;" \
        "RHEL family: dnf install python3.11) or set MOORING_PYTHON to one"
}

choose_places() {
    if [ "$(id -u)" = 0 ]; then
        PREFIX=/opt/mooring
        STATE=/var/lib/mooring-agent
    else
        [ -n "${HOME:-}" ] || fail "HOME is not set"
        PREFIX=$HOME/.local/share/mooring
        STATE=$PREFIX/agent
    fi
    case $PREFIX in
        *[!A-Za-z0-9/._-]*) fail "can't install below $PREFIX: use a home without special characters" ;;
    esac
    MOORING=$PREFIX/venv/bin/mooring
}

install_agent() {
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module; install it (Debian, Ubuntu: apt-get install python3-venv)"
    mkdir -p "$PREFIX"
    work=$(mktemp -d "$PREFIX/download.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    say "fetching $WHEEL from $HUB"
    curl -fsSk --pinnedpubkey "$PIN" --retry 3 -o "$work/$WHEEL" "$HUB/install/$WHEEL" ||
        fail "could not fetch the agent from $HUB (is its certificate still the one of the line you pasted?)"
    say "installing into $PREFIX/venv with $python"
    [ -x "$PREFIX/venv/bin/python" ] || "$python" -m venv "$PREFIX/venv"
    "$PREFIX/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$work/$WHEEL" ||
        fail "pip could not install the agent: see its message above"
    # The same version may hold other code when the hub runs from a checkout.
    "$PREFIX/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --no-deps --force-reinstall "$work/$WHEEL"
}

join_hub() {
    if [ -f "$STATE/agent.json" ]; then
        say "keeping the identity in $STATE"
    else
        [ -n "${MOORING_JOIN_TOKEN:-}" ] ||
            fail "set MOORING_JOIN_TOKEN to a join token (mooring token create, or the hub's pages)"
        if [ -n "${MOORING_NAME:-}" ]; then
            "$MOORING" agent join --state-dir "$STATE" --name "$MOORING_NAME"
        else
            "$MOORING" agent join --state-dir "$STATE"
        fi
    fi
    unset MOORING_JOIN_TOKEN
}

write_environment() {
    : >"$PREFIX/agent.env"
    chmod 600 "$PREFIX/agent.env"
    for name in HTTPS_PROXY https_proxy ALL_PROXY all_proxy NO_PROXY no_proxy; do
        eval "value=\${$name:-}"
        if [ -n "$value" ]; then
            printf '%s=%s\n' "$name" "$value" >>"$PREFIX/agent.env"
        fi
    done
}

# Commands outlive a restart of the agent, hence KillMode=process. As deploy/systemd has it.
write_unit() {
    mkdir -p "$(dirname "$1")"
    cat >"$1" <<UNIT
[Unit]
Description=Mooring agent
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=$MOORING agent run --state-dir $STATE
EnvironmentFile=-$PREFIX/agent.env
Restart=always
RestartSec=5
KillMode=process
Delegate=yes

[Install]
WantedBy=$2
UNIT
}

start_agent() {
    write_environment
    if [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ]; then
        write_unit /etc/systemd/system/mooring-agent.service multi-user.target
        systemctl daemon-reload
        systemctl enable --quiet mooring-agent.service
        systemctl restart mooring-agent.service
        say "started the service mooring-agent (journalctl -u mooring-agent)"
    elif [ "$(id -u)" != 0 ] && systemctl --user show-environment >/dev/null 2>&1; then
        write_unit "$HOME/.config/systemd/user/mooring-agent.service" default.target
        systemctl --user daemon-reload
        systemctl --user enable --quiet mooring-agent.service
        systemctl --user restart mooring-agent.service
        loginctl enable-linger 2>/dev/null ||
            say "it stops when you log out; as root: loginctl enable-linger $(id -un)"
        say "started the user service mooring-agent (journalctl --user -u mooring-agent)"
    else
        start_in_background
    fi
}

is_our_agent() {
    [ -r "/proc/$1/cmdline" ] && tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF -- "agent run --state-dir $STATE"
}

start_in_background() {
    if [ -f "$PREFIX/agent.pid" ]; then
        old=$(cat "$PREFIX/agent.pid")
        case $old in
            '' | *[!0-9]*) ;;
            *) if is_our_agent "$old"; then kill "$old"; fi ;;
        esac
    fi
    nohup "$MOORING" agent run --state-dir "$STATE" >>"$PREFIX/agent.log" 2>&1 </dev/null &
    printf '%s\n' "$!" >"$PREFIX/agent.pid"
    say "started in the background, process $! (log: $PREFIX/agent.log)"
    say "there is no systemd here: have '$MOORING agent run --state-dir $STATE' started at boot"
}

main() {
    umask 077
    command -v curl >/dev/null 2>&1 || fail "needs curl"
    choose_places
    install_agent
    join_hub
    start_agent
    say "done: this machine belongs to $HUB"
}

# Last, so that a script cut off in transit does nothing.
main
