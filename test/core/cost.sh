#!/usr/bin/env bash
# cost.sh FOLDER: instructions per row, as callgrind counts them, against those of cost.txt; fails where one is
# more than 5 % higher. A count and not a time, so a busy machine does not matter. To leave out compiler, C
# library and version of SQLite, what is compared are the counts as multiples of the floor's (bench/floor.c: the
# same b-tree writes, the same SQLite). "make -C test/core cost COST=--write" writes cost.txt anew: with a change
# that is meant to cost more, or that costs less.
set -euo pipefail
folder=$1
file=$(dirname "$0")/cost.txt
rows=20000
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

count() { # NAME FUNCTION PROGRAM ARGUMENT...: instructions inside that function, per row, into a file of that name
  mkdir "$dir/$1.d"
  TMPDIR=$dir/$1.d valgrind --tool=callgrind --callgrind-out-file="$dir/$1.d/out" --collect-atstart=no \
    --toggle-collect="$2*" "${@:3}" 2>&1 | awk -v rows=$rows '/Collected/ { printf "%.0f\n", $NF / rows }' >"$dir/$1" &
}

count floor write_rows "$folder/floor" write key up NORMAL $rows 1000 "$dir/floor.db"
count floor_single write_rows "$folder/floor" write key up NORMAL $rows 1 "$dir/single.db"
count floor_flight write_rows "$folder/floor" write key up NORMAL $rows 100 "$dir/flight.db"
for work in write single flight apply late; do
  count $work measured "$folder/cost" $work
done
wait
now=$dir/now
for name in floor floor_single floor_flight write single flight apply late; do
  [ -s "$dir/$name" ] || { echo "$name: nothing was counted"; exit 1; }
done
for work in write single flight apply late; do
  of=floor
  [ $work = single ] && of=floor_single
  [ $work = flight ] && of=floor_flight
  echo "$work $(cat "$dir/$work") $(cat "$dir/$of")"
done >"$now"

if [ "${2:-}" = --write ]; then
  {
    echo "# work, instructions per row, those of the floor: written by make -C test/core cost COST=--write"
    cat "$now"
  } >"$file"
fi
awk '
  /^#/ { next }
  NR == FNR { was[$1] = $2 / $3; next }
  !($1 in was) { print $1 ": no figure in cost.txt"; bad = 1; next }
  {
    ratio = $2 / $3
    change = (ratio / was[$1] - 1) * 100
    printf "%-8s %7d instructions a row, %.3f of the floor (was %.3f, %+.1f %%)\n", $1, $2, ratio, was[$1], change
    if (change > 5) { print "  more than 5 % above test/core/cost.txt"; bad = 1 }
    seen++
  }
  END { exit bad || seen != 5 }
' "$file" "$now"
