#!/usr/bin/env bash
# run.sh [PREFIX]
# Runs the model of the protocol: it must converge, and no longer do so when one of its rules is left
# out. The rule of the age is needed in few schedules: its first seed is 2858.
set -uo pipefail
cd "$(dirname "$0")"

passed=0 failed=0
check() { # name, whether it must converge, arguments of protocol.py
  local name=$1 wanted=$2 log status
  shift 2
  [[ $name == "${prefix:-}"* ]] || return 0
  log=$(python3 protocol.py "$@")
  status=$?
  echo "# $* -> $log"
  if [ $((status == 0)) = "$wanted" ] && [[ $log == *" diverged"* ]]; then
    echo "ok $name"
    passed=$((passed + 1))
  else
    echo "not ok $name"
    failed=$((failed + 1))
  fi
}

prefix=${1:-}
check model_converges 1 4000
check model_needs_floors 0 200 --without floor
check model_needs_age 0 2900 --without age
check model_needs_all 0 200 --without all
check model_needs_raised_floors 0 200 --without raise
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
