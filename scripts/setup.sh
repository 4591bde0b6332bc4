#!/bin/sh
# The first thing every make target runs: checks that this machine can run Swarm at all, finds a
# Python for it, and hands over to scripts/environment.py. Plain POSIX sh, so that a machine that
# lacks something gets one clear sentence whatever else it lacks.
#
# usage: sh scripts/setup.sh run|test|check     (PYTHON=/path/to/python chooses the interpreter)
set -eu
cd "$(dirname "$0")/.."

stop() {
    printf 'swarm: %s\n' "$1" >&2
    exit 5
}

system=$(uname -s)
machine=$(uname -m)
if [ "$system" != Linux ] || [ "$machine" != x86_64 ]; then
    stop "Swarm runs on Linux x86-64 only; this machine is $system $machine."
fi
command -v git >/dev/null 2>&1 || stop "git is missing; install it (Debian, Ubuntu: apt-get install git)."

# Old enough, 64 bits wide, and with the parts of the standard library that some builds leave out.
fits='import sys
sys.version_info >= (3, 11) and sys.maxsize > 2**32 or sys.exit(1)
import ctypes, fcntl, sqlite3, ssl'

find_python() {
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.14 python; do
        if "$candidate" -c "$fits" >/dev/null 2>&1; then
            printf '%s' "$candidate"
            return
        fi
        if [ -n "${PYTHON:-}" ]; then
            break
        fi
    done
}

python=$(find_python)
if [ -z "$python" ]; then
    found=$("${PYTHON:-python3}" --version 2>/dev/null || echo 'none')
    stop "Python 3.11 or newer with ssl, sqlite3 and ctypes is needed; ${PYTHON:-python3} is: $found. Install one, or name it: make run PYTHON=/path/to/python3.12"
fi
exec "$python" scripts/environment.py "$@"
