#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds and tests everything. Works on a bare Debian 12; needs nothing but this folder.

usage() {
  cat <<'USAGE'
usage: sh test/run.sh [--again] [quick | full | STEP... | SUITE...]

  full    (the default) all suites on every selector with g++, again with clang under ASan and UBSan,
          there with each allocation and each system call failing in turn too, the threaded ones
          under TSan, and those of the floors as 32-bit programs; the checks of style, headers, floors,
          system calls; the programs built against an installed copy; the README's program
  quick   g++ only: the suites on epoll, and the checks that take no time
  STEP    these steps of full: style headers gcc readme asan out_of_memory failing_calls
          without_libev tsan install
  SUITE   these suites on every selector: core system selector loop net async examples
          peers network (network: a namespace of its own, as root, on epoll and poll)

What is missing is installed, or told with the line that installs it; what not
everything needs is skipped then. A step of `full` that was green isn't repeated
while no file, compiler or library has changed; it says so and counts what it
counted then. --again repeats it, and so does CI.
USAGE
}

cd "$(dirname "$0")/.." || exit
unset PAWL_SELECTOR PAWL_DEBUG PAWL_TRACE
support=test/support
. $support/install.sh
. $support/processes.sh

passed=0
failed=0
always=${CI:-}

# ---- rows: what was done, how long it took, what came out

row() { # MARK TITLE BEGUN TEXT
  printf '%-5s %-34s %8s  %s\n' "$1" "$2" "$(as_seconds $(($(milliseconds) - $3)))" "$4"
}

# A command that is right or wrong: one test. What it printed is shown when it is wrong.
check() { # TITLE COMMAND...
  title=$1
  shift
  begun=$(milliseconds)
  if run "$@" >"$temp/output" 2>&1; then
    passed=$((passed + 1))
    row ok "$title" "$begun" ""
  else
    failed=$((failed + 1))
    row FAIL "$title" "$begun" ""
    cat "$temp/output"
    return 1
  fi
}

# What a machine can't do is said, and neither right nor wrong.
skips=0

can() { # TITLE PACKAGE PROBE...
  title=$1
  package=$2
  shift 2
  "$@" >/dev/null 2>&1 && return
  skips=$((skips + 1))
  row skip "$title" "$(milliseconds)" "skipped: needs the package $package"
  return 1
}

# Catch's totals, as "PASSED FAILED". Nothing at all is what a crash leaves.
catch_totals() {
  awk '
    /^All tests passed \(/  { for (i = 1; i < NF; i++) if ($i == "in") { good = $(i + 1); bad = 0 } }
    /^test cases: /         { good = bad = 0
                              for (i = 2; i <= NF; i++) {
                                if ($i == "passed") good = $(i - 1)
                                if ($i == "failed" && $(i + 1) != "as") bad = $(i - 1)
                                if ($i == "failed" && $(i + 1) == "as") good += $(i - 1)
                              } }
    /^No tests ran/         { good = bad = 0 }
    END                     { print good, bad }' "$1"
}

# What a suite said that it can't do here: ", 22 of them skipped: needs root".
skipped() { # OUTPUT
  sed -n 's/^ *skipped: /skipped: /p' "$1" | sort | uniq -c | while read -r count reason; do
    printf ', %s of them %s' "$count" "$reason"
  done
}

# Where it may be had, each suite gets a network of its own: the kernel keeps the port of a closed
# connection for a minute, and suites that follow each other fast would use all of them up.
own_network=
find_own_network() {
  if unshare --net sh $support/own_network.sh true 2>/dev/null; then
    own_network="unshare --net sh $support/own_network.sh"
  fi
}

# A Catch program: one test for each of its cases, and one that failed if it ended badly otherwise.
# So many of them run beside each other: more than there are cores, where they mostly wait. Their rows
# come in the order of their beginnings, so the time in a row may include a wait for the row above.
suites_at_once=3
running_suites=0
next_suite=0

run_suite() { # TITLE LIMIT COMMAND...
  if [ "$running_suites" -ge "$suites_at_once" ]; then
    end_suite
  fi
  suite_file=$temp/suite.$next_suite
  limit=$2
  printf '%s\n' "$1" "$limit" "$(milliseconds)" >"$suite_file"
  shift 2
  start timeout --kill-after=5 "$limit" $own_network "$@" >"$suite_file.output" 2>&1
  echo "$started" >>"$suite_file"
  running_suites=$((running_suites + 1))
  next_suite=$((next_suite + 1))
}

# Waits for the one that began first.
end_suite() {
  suite_file=$temp/suite.$((next_suite - running_suites))
  { read -r title && read -r limit && read -r begun && read -r pid; } <"$suite_file"
  status=0
  wait_for "$pid" || status=$?
  running_suites=$((running_suites - 1))
  count_suite "$suite_file.output"
}

end_suites() {
  while [ "$running_suites" -gt 0 ]; do
    end_suite
  done
}

count_suite() { # OUTPUT
  read -r good bad <<TOTALS
$(catch_totals "$1")
TOTALS
  bad=${bad:-0}
  ending=
  if [ "$status" -eq 124 ]; then
    ending=", not over after $limit s"
  elif [ -z "$good" ] || { [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; }; then
    ending=", ended early with status $status"
  fi
  if [ -n "$ending" ] && [ "$bad" -eq 0 ]; then
    bad=1
  fi
  passed=$((passed + ${good:-0}))
  failed=$((failed + bad))
  if [ "$bad" -eq 0 ]; then
    row ok "$title" "$begun" "$good passed$(skipped "$1")"
  else
    row FAIL "$title" "$begun" "${good:-0} passed, $bad failed$ending"
    cat "$1"
  fi
}

# ---- builds, and the suites of a build

build() { # CONFIGURATION COMPILER TARGETS OPTION...
  configuration=$1
  compiler=$2
  targets=$3
  shift 3
  check "$configuration: build" sh $support/build.sh "$configuration" "$compiler" "$targets" \
    -Dwerror=true -Dtests=enabled "$@"
}

# The suites that the build's meson.build lists.
run_suites() { # CONFIGURATION LIMIT SUITES SELECTORS [CATCH ARGUMENT...]
  configuration=$1
  limit=$2
  suites=$3
  selectors=$4
  shift 4
  counted_before=$((passed + failed))
  run python3 $support/suites.py ".build/$configuration" >"$temp/suites"
  while read -r line; do
    run_listed_suite "$line" "$@"
  done <"$temp/suites"
  end_suites
  if [ $((passed + failed)) -eq "$counted_before" ]; then
    failed=$((failed + 1))
    echo "FAIL  $configuration: no test in $suites"
  fi
}

run_listed_suite() { # LINE [CATCH ARGUMENT...]
  eval "set -- $1 ${2:+\"\$2\"}"
  suite=$1
  selector=$2
  title=$3
  shift 3
  case " $suites " in *" $suite "*) ;; *) return ;; esac
  case " $selectors - " in *" $selector "*) ;; *) return ;; esac
  run_suite "$configuration: $title" "$limit" $without_random_addresses "$@"
}

# ---- steps

all_steps='style headers gcc readme asan out_of_memory failing_calls without_libev tsan install'
floor_suites='core system selector loop net async'
program_suites='examples peers network'
all_suites="$floor_suites $program_suites"
all_selectors='select poll epoll libev'

# The sanitizers' shadow memory collides with what some kernels draw for addresses.
without_random_addresses=
avoid_random_addresses() {
  if setarch -R true 2>/dev/null; then
    without_random_addresses='setarch -R'
  fi
}

step_style() {
  can 'clang-format' clang-format has_command clang-format &&
    check 'clang-format' sh $support/checks.sh format
  check 'every source is in a meson.build' sh $support/checks.sh listed
  check 'includes go down the floors' sh $support/checks.sh floors
  check 'no width that a program may choose' sh $support/checks.sh widths
  check '--help neither installs nor builds' sh $support/checks.sh helps
}

step_headers() {
  check 'headers compile alone, g++' sh $support/checks.sh headers g++
  can 'headers compile alone, clang' clang has_command clang++ &&
    check 'headers compile alone, clang' sh $support/checks.sh headers clang++
}

step_gcc() { # [SELECTORS]
  build gcc g++ '' -Doptimization=2 -Ddebug=false || return
  check 'system calls only in their floors' sh $support/checks.sh system_calls
  check 'the library prints nothing' sh $support/checks.sh prints
  run_suites gcc 120 "$floor_suites" "${1:-$all_selectors}"
  suites_at_once=4  # they mostly wait for the programs that they run
  run_suites gcc 120 "$program_suites" "${1:-$all_selectors}"
  suites_at_once=3
}

# What a user without libev and c-ares gets, and who installs the shared library alone. As 32-bit
# programs where they can be made: Debian has no 32-bit libev beside the other. What differs between
# the selectors is in the selector suite, which loops over all of them.
step_without_libev() {
  without='-Dlibev=disabled -Dcares=disabled -Dexamples=disabled -Doptimization=0 -Ddebug=false'
  if ! can 'm32' g++-multilib makes_32_bit_programs; then
    build without_libev g++ 'pawl:shared_library test_selector' $without -Ddefault_library=shared &&
      run_suites without_libev 120 selector ''
    return
  fi
  maker=g++
  ! has_command clang++ >/dev/null || maker=clang++ # which takes two thirds of the time
  build m32 $maker 'pawl:shared_library test_core test_system test_selector test_loop test_net test_async' \
    $without -Ddefault_library=both -Dcpp_args=-m32 -Dcpp_link_args=-m32 &&
    run_suites m32 120 "$floor_suites" epoll
}

# The other compiler as well: its instrumented code is made in a third of the time that g++ takes.
step_asan() {
  build_asan && run_suites asan 400 "$floor_suites" "$all_selectors"
}

# Each allocation of the library fails in turn: what that breaks is mostly seen by ASan alone.
step_out_of_memory() {
  suites_at_once=2  # they work
  build_asan && run_suites asan 900 out_of_memory "$all_selectors"
  suites_at_once=3
}

# Each system call fails in turn, too: its most telling part, unless PAWL_SWEEP=whole.
step_failing_calls() {
  limit=400
  [ "${PAWL_SWEEP:-}" != whole ] || limit=4000
  build_asan && run_suites asan $limit failing_calls "$all_selectors"
}

build_asan() {
  can 'asan: build' 'clang or libclang-rt-dev' has_clang_sanitizers || return
  export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:allow_addr2line=1
  export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
  avoid_random_addresses
  build asan clang++ '' -Ddefault_library=static -Doptimization=1 -Ddebug=false \
    -Dcpp_args=-g1 -Db_sanitize=address,undefined -Db_lundef=false
}

# Only what crosses threads: TSan has nothing to say about the rest.
step_tsan() {
  export TSAN_OPTIONS=second_deadlock_stack=1
  avoid_random_addresses
  build tsan g++ 'test_loop test_net test_async' -Ddefault_library=static -Doptimization=0 \
    -Ddebug=false -Dcpp_args=-g1 -Db_sanitize=thread -Dexamples=disabled &&
    run_suites tsan 400 'loop net async' "$all_selectors" '[threads]'
}

step_install() {
  check 'install: build and install' sh $support/installed.sh install || return
  for program in pkg_config pkg_config_static cmake_shared cmake_static subproject; do
    case $program in
      cmake_*)
        can "install: $program" cmake has_command cmake && can "install: $program" make has_command make ||
          continue
        ;;
    esac
    check "install: $program" sh $support/installed.sh $program
  done
  check 'install: uninstall' sh $support/installed.sh uninstall
}

step_readme() {
  check "the README's program" sh $support/checks.sh readme
}

# ---- what was green and is unchanged

# Everything that a step's outcome can depend on and that may change, even while it runs.
fingerprint() {
  {
    find lib include examples test meson.build meson_options.txt .clang-format README.md -type f \
      -exec sha256sum {} + | sort
    g++ --version
    clang++ --version
    uname -r
    dpkg-query -W libc6 libev-dev libc-ares-dev catch2 meson cmake libhiredis-dev libpq-dev
  } 2>/dev/null | sha256sum
}

step() { # NAME
  stamp=.build/green/$1
  if [ -z "$always" ] && [ -f "$stamp" ] && [ "$(sed -n 1p "$stamp")" = "$inputs" ]; then
    count=$(sed -n 3p "$stamp")
    passed=$((passed + count))
    printf 'same  %s: unchanged since the green run of %s: %s passed\n' \
      "$1" "$(sed -n 2p "$stamp")" "$count"
    return
  fi
  rm -f "$stamp"
  passed_before=$passed
  failed_before=$failed
  skips_before=$skips
  "step_$1"
  if [ "$failed" -eq "$failed_before" ] && [ "$skips" -eq "$skips_before" ] && [ "$(fingerprint)" = "$inputs" ]; then
    printf '%s\n%s\n%s\n' "$inputs" "$(date '+%F %T')" "$((passed - passed_before))" >"$stamp"
  fi
}

steps() { # STEP...
  mkdir -p .build/green
  inputs=$(fingerprint)
  for name; do
    step "$name"
  done
}

# Where two run at once, the second waits: they would build in the same folders.
lock() {
  mkdir -p .build
  exec 9>.build/lock
  flock -n 9 && return
  echo 'waiting for another test/run.sh to end'
  flock 9 &
  children="$children $!"
  wait_for $!
}

install_tools() {
  need_build_tools
  need catch2 has_header catch2/catch.hpp
  need binutils has_command nm
  want clang has_command clang++
  want libclang-rt-dev has_clang_sanitizers
  want clang-format has_command clang-format
  want cmake has_command cmake
  want make has_command make # what CMake builds with, and doesn't bring
  want netcat-openbsd has_openbsd_nc
  want curl has_command curl
  want socat has_command socat
  want iproute2 has_command ip
  want dnsmasq-base test -x /usr/sbin/dnsmasq
  want libhiredis-dev has_header hiredis/async.h
  want redis-server has_command redis-server
  want libpq-dev test -f /usr/include/postgresql/libpq-fe.h
  want postgresql has_postgresql
  want nginx-light test -x /usr/sbin/nginx
  want haproxy test -x /usr/sbin/haproxy
  want apache2-utils has_command ab
  want wrk has_command wrk
  want nftables test -x /usr/sbin/nft
  want strace has_command strace
  want g++-multilib makes_32_bit_programs
  install_missing
}

what=
for argument; do
  case $argument in
    --again) always=yes ;;
    -h | --help) usage && exit ;;
    full | quick) what=$argument ;;
    *)
      case " $all_steps $all_suites " in
        *" $argument "*) what="$what $argument" ;;
        *) usage >&2 && exit 2 ;;
      esac
      ;;
  esac
done

install_tools
find_own_network
lock
begun_all=$(milliseconds)
wanted_steps=
wanted_suites=
for word in ${what:-full}; do
  case " $all_suites " in
    *" $word "*) wanted_suites="$wanted_suites $word" ;;
    *) wanted_steps="$wanted_steps $word" ;;
  esac
done
case $wanted_steps in
  *full*) steps $all_steps ;;
  *quick*)
    step_style
    step_gcc epoll
    ;;
  *)
    steps $wanted_steps
    if [ -n "$wanted_suites" ]; then
      build gcc g++ '' -Doptimization=2 -Ddebug=false && run_suites gcc 120 "$wanted_suites" "$all_selectors"
    fi
    ;;
esac
echo "took $(as_seconds $(($(milliseconds) - begun_all)))"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
