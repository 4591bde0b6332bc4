#!/bin/sh
# The tests with their full counts: first those that measure time or memory, with nothing beside
# them, then the others in two processes. Both parts are run; it fails if one of them does, or if
# there were no tests in either.
#
# usage: sh scripts/prove.sh PYTHON [OPTION OF PYTEST ...]
set -u
python=$1
shift
export SWARM_TEST_WHEEL=1 SWARM_TEST_SCALE=full
no_tests=5 # pytest's exit code
empty=0
status=0

part() {
    "$python" -m pytest "$@"
    code=$?
    if [ "$code" -eq "$no_tests" ]; then
        empty=$((empty + 1))
    elif [ "$code" -ne 0 ]; then
        status=$code
    fi
}

part -m alone "$@"
part -m "not alone" -n 2 --dist worksteal "$@"
[ "$empty" -lt 2 ] || status=$no_tests
exit "$status"
