#!/bin/sh
# SPDX-License-Identifier: MIT
# Prints what an echo of 64 bytes and a connection cost a server: by hand, with libev, with pawl.
# Everything is counted (callgrind, strace, malloc), as the difference between a long and a short run,
# but for the last row, which is the clock's: the median of five, interleaved.
. "$(dirname "$0")/help.sh"
for tool in valgrind strace; do
  command -v $tool >/dev/null || { echo "$0: first: apt-get install valgrind strace" >&2; exit 3; }
done
. "$(dirname "$0")/build.sh"
echo_program=$build/test/bench/bench-echo
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
contenders='by-hand libev pawl'

row() { # TITLE COUNTED-BY SHORT LONG DIVISOR
  printf '%-40s' "$1"
  for contender in $contenders; do
    short=$($2 "$contender" $3)
    long=$($2 "$contender" $4)
    awk -v a="$short" -v b="$long" -v n="$5" 'BEGIN { printf " %10.2f", (b - a) / n }'
  done
  printf '\n'
}

instructions() { # CONTENDER LOAD...
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$echo_program" "$@" 2>"$temp/errors" \
    >/dev/null
  awk '/Collected/ { print $NF }' "$temp/errors"
}

# A server that is faster than its client waits more often, so waits are left out where they hide the
# rest.
calls() {
  strace -qq -o "$temp/calls" "$echo_program" "$@" >/dev/null
  grep -c -v -e SIGCHLD -e '^+++' "$temp/calls"
}

calls_but_waits() {
  strace -qq -o "$temp/calls" "$echo_program" "$@" >/dev/null
  grep -c -v -e SIGCHLD -e '^+++' -e '^epoll_wait' -e '^epoll_pwait' "$temp/calls"
}

allocations() {
  "$echo_program" "$@" | sed -n 's/^allocations //p'
}

clock() {
  for i in 1 2 3 4 5; do
    for contender in $contenders; do
      "$echo_program" "$contender" 100 2000 1 | sed -n "s/^nanoseconds /$contender /p"
    done
  done >"$temp/times"
  printf '%-40s' 'ns a message, 100 connections'
  for contender in $contenders; do
    sed -n "s/^$contender //p" "$temp/times" | sort -n | awk 'NR == 3 { printf " %10.0f", $1 }'
  done
  printf '\n'
}

printf '%-40s' ''
printf ' %10s' $contenders
printf '\n'
row 'instructions a message' instructions '100 20 1' '100 120 1' 10000
row 'system calls a message' calls '100 20 1' '100 120 1' 10000
row 'allocations a message' allocations '100 20 1' '100 120 1' 10000
row 'instructions a connection' instructions '100 1 10' '100 1 30' 2000
row 'system calls a connection, no waits' calls_but_waits '100 1 10' '100 1 30' 2000
row 'allocations a connection' allocations '100 1 10' '100 1 30' 2000
clock
