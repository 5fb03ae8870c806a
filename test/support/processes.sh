# SPDX-License-Identifier: MIT
# For test/run.sh and examples/run.sh to source: child processes, a folder for temporary files, and
# their end, whatever ends the script.
#
#   run COMMAND...     runs it, waits for it, and returns its status
#   start COMMAND...   runs it beside the script; $started is its process id
#   stop SIGNAL PID    ends what was started and returns its status; kills it after five seconds
#   $temp              a folder that goes with the script
#
# Each child has a session of its own, so that one signal reaches all its descendants; and the script
# only ever waits in `wait`, because a shell runs no trap while a child is in the foreground.

temp=$(mktemp -d "${TMPDIR:-/tmp}/pawl.XXXXXX")
children=
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM HUP
trap 'end_children; rm -rf "$temp"' EXIT

# The descriptor 9 is the script's lock, and not for its children to hold.
start() {
  setsid "$@" 9>&- &
  started=$!
  children="$children $started"
}

run() {
  start "$@"
  wait_for "$started"
}

wait_for() {
  wait_status=0
  wait "$1" || wait_status=$?
  forget_child "$1"
  return "$wait_status"
}

stop() {
  signal_child "$1" "$2"
  wait_until_gone 50 "$2" || signal_child KILL "$2"
  wait_for "$2"
}

forget_child() {
  others=
  for child in $children; do
    [ "$child" = "$1" ] || others="$others $child"
  done
  children=$others
}

# By its own number where it hasn't reached setsid yet.
signal_child() {
  kill -s "$1" -- "-$2" 2>/dev/null || kill -s "$1" "$2" 2>/dev/null
}

# Politely first; what is still there after three seconds can't be asked.
end_children() {
  trap '' INT TERM HUP
  for child in $children; do
    signal_child TERM "$child"
  done
  wait_until_gone 30 $children && return
  for child in $children; do
    signal_child KILL "$child"
  done
}

# False when one of them is still there after so many tenths of a second.
wait_until_gone() { # TENTHS PID...
  tenths=$1
  shift
  for child; do
    while kill -s 0 -- "-$child" 2>/dev/null; do
      [ "$tenths" -gt 0 ] || return 1
      tenths=$((tenths - 1))
      sleep 0.1
    done
  done
}

milliseconds() {
  echo $(($(date +%s%N) / 1000000))
}

# 1234 → "1.2 s"
as_seconds() {
  echo "$(($1 / 1000)).$(($1 % 1000 / 100)) s"
}
