#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds the examples and runs every client on every selector against the local servers, which run on
# the same selector. Works on a bare Debian 12; ends with 1 when a row failed. pg_query has a row where
# PostgreSQL is installed, which is too big to be installed for one row.

usage() {
  cat <<'USAGE'
usage: sh examples/run.sh

Installs what is missing on Debian 12, builds the examples, starts the local
servers and runs every example on every selector. Exit code 1 when one failed.
USAGE
}

for argument; do
  case $argument in
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
  esac
done

cd "$(dirname "$0")/.." || exit
set -f # addresses have question marks in them
unset PAWL_SELECTOR PAWL_DEBUG PAWL_TRACE
. test/support/install.sh
. test/support/processes.sh

selectors='select poll epoll libev'
programs=.build/examples/examples

# NAME | WHAT ITS OUTPUT HAS TO CONTAIN, a regular expression | PROGRAM ARGUMENTS
rows() {
  cat <<ROWS
fetch           | 1000000 bytes         | fetch $http/ $http/bytes?n=1000000 $http/slow?ms=100
fetch --trace   | SENDING -> RECEIVING  | fetch --trace $http/
fetch --compare | took 0[.][0-9]* of    | fetch --compare $http/slow?ms=100 $http/slow?ms=100 $http/slow?ms=100
fetch --blocking| took 0[.][0-9]* of    | fetch --blocking $http/slow?ms=100 $http/slow?ms=100
fetch --busy    | recv [0-9]* times     | fetch --busy $http/slow?ms=50 $http/
fetch --svg     | 16 bytes              | fetch --svg $temp/picture.svg $http/hello
poller --block. | [0-9] of the time     | poller --blocking --count 3 $http/next $slower_http/next
poller          | next request in 50.0  | poller --count 3 $http/next $slower_http/next
echo_client     | 100 round trips       | echo_client $echo --count 100 --size 10000
tcp_proxy       | 1000000 bytes         | fetch http://$proxy/bytes?n=1000000 http://$proxy/slow?ms=100
echo_udp        | 100 datagrams         | echo_udp $echo_udp --patience 0.02
udp_calls       | ^loop .*for request1  | udp_calls --delay 0.1
udp_calls shared| no answer to request0 | udp_calls --mode shared-unlocked,shared --delay 0.05
run_program     | exit code 0 after     | run_program ls pwd --timeout 20
take_turns      | ^done$                | take_turns --scale 0.05
take_turns --t. | running task .* step  | take_turns --trace --scale 0.05
take_turns --s. | ^Z$                   | take_turns --sequence
take_turns --i. | ^Z$                   | take_turns --interleave
say_after       | of the time           | say_after --blocking --scale 0.1
tiny            | the order of the arg  | tiny $http/slow?ms=100 $http/hello
unix_fd_pass    | 2 files handed over   | unix_fd_pass $files README.md LICENSE
resolve         | address *127.0.0.1    | resolve --count 2 --family 4 localhost
resolve (cares) | address *127.0.0.1    | resolve --backend cares localhost 127.0.0.1
ROWS
  [ -z "$redis" ] || echo "redis_ping | 1000 PONGs | redis_ping unix:$redis --count 1000"
  [ -z "$postgres" ] || echo "pg_query | timer ticked | pg_query host=$postgres"
}

failed=0

row() { # NAME BEGUN RESULT
  printf '%-9s %-16s %6s ms  %s\n' "$selector" "$1" $(($(milliseconds) - $2)) "$3"
}

fail() { # NAME BEGUN RESULT OUTPUT...
  failed=$((failed + 1))
  row "$1" "$2" "$3"
  shift 3
  sed 's/^/    /' "$@"
}

# Starts a server; its first line tells where it is. $address is that, $server its process.
serve() { # PROGRAM ARGUMENTS...
  name=$1
  shift
  begun=$(milliseconds)
  mkfifo "$temp/$name"
  # Two descriptors, because opening a fifo at one end waits for the other. The server alone keeps the
  # writing end, so its death ends the line, and the reading end too, so it may say more than a line.
  exec 3<>"$temp/$name" 4<"$temp/$name"
  start "$programs/$name" --selector "$selector" "$@" \
    >"$temp/$name" 2>"$temp/$name.errors" 3>&-
  exec 3>&-
  server=$started
  address=$(timeout 10 head -n 1 <&4 | sed -n 's/^listening on //p')
  exec 4<&-
  rm "$temp/$name"
  [ -n "$address" ] && return
  fail "$name" "$begun" 'did not start' "$temp/$name.errors"
  return 1
}

# A row like the others: a server has to end by itself, in order, when it gets a Ctrl-C.
end_server() { # PROGRAM PID
  begun=$(milliseconds)
  status=0
  stop INT "$2" || status=$?
  if [ "$status" -eq 0 ]; then
    row "$1" "$begun" 'ok, ended by Ctrl-C'
  else
    fail "$1" "$begun" "ended with status $status after Ctrl-C" "$temp/$1.errors"
  fi
}

run_client() { # NAME PATTERN PROGRAM ARGUMENTS...
  name=$1
  pattern=$2
  program=$3
  shift 3
  begun=$(milliseconds)
  status=0
  run timeout 30 "$programs/$program" --selector "$selector" "$@" >"$temp/output" 2>&1 || status=$?
  if [ "$status" -ne 0 ]; then
    fail "$name" "$begun" "failed with status $status" "$temp/output"
  elif ! grep -qE -e "$pattern" "$temp/output"; then
    fail "$name" "$begun" "does not say $pattern" "$temp/output"
  else
    row "$name" "$begun" ok
  fi
}

# Real databases, where they are installed: each on a Unix socket in a folder of its own. What can't
# be started is a row that failed. PostgreSQL's programs refuse to be run by root.
redis=
serve_redis() {
  if ! has_command redis-server >/dev/null || [ ! -x $programs/redis_ping ]; then
    echo 'redis_ping is left out; libhiredis-dev and redis-server bring it in'
    return
  fi
  redis=$temp/redis
  start redis-server --port 0 --unixsocket "$redis" --save '' --dir "$temp" >"$temp/redis.log" 2>&1
  redis_server=$started
  wait_for_line 'ready to accept' "$temp/redis.log"
}

postgres=
serve_postgres() {
  postgres_programs=$(set +f; ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)
  if [ -z "$postgres_programs" ] || [ ! -x $programs/pg_query ]; then
    echo 'pg_query is left out; libpq-dev and postgresql bring it in'
    return
  fi
  mkdir "$temp/postgres"
  as_user=
  if [ "$(id -u)" -eq 0 ]; then
    as_user="setpriv --reuid=nobody --regid=nogroup --clear-groups"
    chmod 711 "$temp"
    chown nobody "$temp/postgres"
  fi
  run $as_user "$postgres_programs/initdb" -D "$temp/postgres/data" -U postgres -A trust --no-sync \
    --locale=C >"$temp/postgres.log" 2>&1
  start $as_user "$postgres_programs/postgres" -D "$temp/postgres/data" -c fsync=off \
    -c listen_addresses= -c "unix_socket_directories=$temp/postgres" >>"$temp/postgres.log" 2>&1
  postgres_server=$started
  postgres=$temp/postgres
  export PGUSER=postgres PGDATABASE=postgres
  wait_for_line 'ready to accept' "$temp/postgres.log"
}

wait_for_line() { # TEXT FILE
  tenths=100
  until grep -q "$1" "$2"; do
    tenths=$((tenths - 1))
    [ "$tenths" -gt 0 ] || { cat "$2"; return 1; }
    sleep 0.1
  done
}

run_selector() {
  serve http_server --port 0 --next 0.05 || return
  http=$address http_server=$server
  serve http_server --port 0 --next 0.1 || return
  slower_http=$address slower_http_server=$server
  serve echo_server --port 0 || return
  echo=$address echo_server=$server
  serve tcp_proxy --port 0 "${http#http://}" || return
  proxy=$address tcp_proxy=$server
  serve unix_fd_pass --listen "$temp/files" || return
  files=${address#unix:} unix_fd_pass=$server
  serve echo_udp --serve --port 0 --lose 10 || return
  echo_udp=$address echo_udp_server=$server
  serve chat --port 0 || return
  chat_server=$server
  rows >"$temp/rows"
  while IFS='|' read -r name pattern command; do
    run_client "$(echo $name)" "$(echo $pattern)" $command
  done <"$temp/rows"
  end_server tcp_proxy "$tcp_proxy"
  end_server unix_fd_pass "$unix_fd_pass"
  end_server echo_udp "$echo_udp_server"
  end_server chat "$chat_server"
  end_server http_server "$http_server"
  end_server http_server "$slower_http_server"
  end_server echo_server "$echo_server"
}

need_build_tools
want libhiredis-dev has_header hiredis/async.h
want redis-server has_command redis-server
want libpq-dev test -f /usr/include/postgresql/libpq-fe.h
install_missing
echo 'building ...'
run sh test/support/build.sh examples g++ '' -Ddefault_library=shared -Dexamples=enabled \
  -Dtests=disabled >"$temp/build" 2>&1 || {
  cat "$temp/build"
  exit 1
}
serve_redis
serve_postgres
printf '%-9s %-16s %9s  %s\n' selector example time result
for selector in $selectors; do
  run_selector
done
[ -z "$redis" ] || stop TERM "$redis_server"
[ -z "$postgres" ] || stop INT "$postgres_server"
if [ "$failed" -gt 0 ]; then
  echo "$failed failed"
  exit 1
fi
