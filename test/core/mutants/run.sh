#!/usr/bin/env bash
# run.sh [PREFIX]
# Proves the tests: each script of this folder puts a typical bug back into a copy of the core, and
# a test has to find it. A line "# found by [PROGRAM] TEST" names it, and each of several has to;
# without a program it is one of the simulator's, which has a thousand seeds for it, and without a
# line clusters_converge. Of the program only what differs is compiled anew. From the Makefile's folder, with its MUTANT_CC,
# MUTANT_FLAGS and MUTANT_LIBS.
# shellcheck disable=SC2086,SC2010 # lists of words; our own file names
set -euo pipefail

core=../../src/core out=../../build/test/sim

fail() {
  echo "# $2"
  echo "not ok mutant_$1"
  failed=$((failed + 1))
}

# Whether that test fails with this mutant. Only then the mutant counts as found.
notices() { # PROGRAM TEST
  local status=0 seeds=${SEEDS:-}
  $MUTANT_CC "${objects[@]}" $others "$out/$1.o" $MUTANT_LIBS -o "$here/$1" || exit 1
  [ "$1" != test_sim ] || seeds=${seeds:-1000}
  SEEDS=$seeds timeout 300 "$here/$1" "$2" >"$here/log" 2>&1 || status=$?
  case $status in
  0) fail "$name" "$1 does not notice it" && return 1 ;;
  124) fail "$name" "$1 has not noticed it in five minutes" && return 1 ;;
  esac
  grep -m2 "^# .*:.*:\|replay\|runtime error" "$here/log" || true
}

passed=0 failed=0
for script in mutants/*.sed; do
  name=$(basename "$script" .sed)
  [[ mutant_$name == "${1:-}"* ]] || continue
  here=$out/mutants/$name
  rm -rf "$here"
  mkdir -p "$here"
  objects=()
  for source in "$core"/*.c "$core"/*/*.c; do
    base=$(basename "$source" .c)
    sed -E -f "$script" "$source" >"$here/$base.c"
    if cmp -s "$source" "$here/$base.c"; then
      rm "$here/$base.c"
      object=${source#"$core/"}
      objects+=("$out/core/${object%.c}.o")
    else
      $MUTANT_CC $MUTANT_FLAGS -c "$here/$base.c" -o "$here/$base.o"
      objects+=("$here/$base.o")
    fi
  done
  if ! ls "$here"/*.o >/dev/null 2>&1; then
    fail "$name" "$script no longer applies to any file of the core"
    continue
  fi
  # core_*.o: as earlier versions of the Makefile named them
  others=$(ls "$out"/*.o | grep -v '/core_\|/test_\|/fuzz_')
  found=$(sed -n 's/^# found by //p' "$script")
  notices=1
  while read -r program finder; do
    [[ $program == test_* ]] || { finder=${program:-clusters_converge} program=test_sim; }
    notices "$program" "$finder" || notices=0
  done <<<"$found"
  [ "$notices" = 1 ] || continue
  echo "ok mutant_$name"
  passed=$((passed + 1))
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
