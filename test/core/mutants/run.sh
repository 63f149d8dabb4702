#!/usr/bin/env bash
# run.sh [PREFIX]
# Proves the tests: each script of this folder puts a typical bug back into a copy of the core, and
# a test has to find it. A line "# found by [PROGRAM] TEST" names it; without a program it is one of
# the simulator's, which has a thousand seeds for it, and without a line clusters_converge. Of the
# program only what differs is compiled anew. From the Makefile's folder, with its MUTANT_CC,
# MUTANT_FLAGS and MUTANT_LIBS.
# shellcheck disable=SC2086,SC2010 # lists of words; our own file names
set -euo pipefail

core=../../src/core out=../../build/test/sim

fail() {
  echo "# $2"
  echo "not ok mutant_$1"
  failed=$((failed + 1))
}

passed=0 failed=0
for script in mutants/*.sed; do
  name=$(basename "$script" .sed)
  [[ mutant_$name == "${1:-}"* ]] || continue
  here=$out/mutants/$name
  rm -rf "$here"
  mkdir -p "$here"
  objects=()
  for source in "$core"/*.c; do
    base=$(basename "$source" .c)
    sed -E -f "$script" "$source" >"$here/$base.c"
    if cmp -s "$source" "$here/$base.c"; then
      rm "$here/$base.c"
      objects+=("$out/core_$base.o")
    else
      $MUTANT_CC $MUTANT_FLAGS -c "$here/$base.c" -o "$here/$base.o"
      objects+=("$here/$base.o")
    fi
  done
  if ! ls "$here"/*.o >/dev/null 2>&1; then
    fail "$name" "$script no longer applies to any file of the core"
    continue
  fi
  others=$(ls "$out"/*.o | grep -v '/core_\|/test_\|/fuzz_')
  read -r program finder <<<"$(sed -n 's/^# found by //p' "$script")"
  [[ $program == test_* ]] || { finder=${program:-clusters_converge} program=test_sim; }
  $MUTANT_CC "${objects[@]}" $others "$out/$program.o" $MUTANT_LIBS -o "$here/$program"
  status=0
  seeds=${SEEDS:-}
  [ "$program" != test_sim ] || seeds=${seeds:-1000}
  SEEDS=$seeds timeout 300 "$here/$program" "$finder" >"$here/log" 2>&1 || status=$?
  if [ "$status" = 0 ]; then
    fail "$name" "$program does not notice it"
  elif [ "$status" = 124 ]; then
    fail "$name" "$program has not noticed it in five minutes"
  else
    grep -m2 "^# .*:.*:\|replay\|runtime error" "$here/log" || true
    echo "ok mutant_$name"
    passed=$((passed + 1))
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
