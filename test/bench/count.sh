#!/bin/sh
# SPDX-License-Identifier: MIT
# Prints the instructions that one operation takes, by callgrind: the same on every run and machine
# load, blind to caches and the kernel. Arguments: contenders (default: all that are here).
. "$(dirname "$0")/help.sh"
command -v valgrind >/dev/null || { echo "$0: first: apt-get install valgrind" >&2; exit 3; }
. "$(dirname "$0")/build.sh"
[ $# -gt 0 ] || set -- pawl 'by hand' libev libuv libevent Asio
count=${COUNT:-100000}
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT

printf '%-22s' "instructions each"
printf ' %9s' "$@"
printf '\n'
for operation in timer-add timer-add-again timer-cancel timer-fire idle-touch call-soon chain \
  off-and-on remove-and-add; do
  printf '%-22s' "$operation"
  for contender in "$@"; do
    if valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect=bench_measured \
      "$build/test/bench/bench-count" "$contender" "$operation" "$count" 2>"$errors" >&2; then
      awk -v count="$count" '/Collected/ { printf " %9.1f", $NF / count }' "$errors"
    else
      printf ' %9s' -
    fi
  done
  printf '\n'
done
