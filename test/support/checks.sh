# SPDX-License-Identifier: MIT
# usage: sh test/support/checks.sh format | listed | headers COMPILER | floors | helps | system_calls
#                                  | prints | widths | readme
#
# Each check prints what is wrong and where, and fails; or prints nothing that matters.
# `system_calls`, `prints` and `readme` look at the build in .build/gcc.

cd "$(dirname "$0")/../.." || exit
build=.build/gcc
strict='-std=c++17 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror'

format() {
  find lib include examples test -name '*.[ch]pp' | sort >.build/formatted
  xargs clang-format --dry-run --Werror <.build/formatted 2>.build/format.log && return
  sed -n 's/:.* error: code should be clang-formatted.*//p' .build/format.log | sort | uniq -c
  echo 'clang-format -i FILE mends it'
  return 1
}

# A test that meson.build doesn't name would never fail.
listed() {
  status=0
  for file in $(find lib examples test -name '*.cpp' ! -path 'test/install/*'); do
    list=$(dirname "$file")/meson.build
    [ -f "$list" ] || list=test/meson.build
    grep -q "['/]$(basename "$file")'\|'$(basename "$file" .cpp)'" "$list" || {
      echo "$file is not in $list"
      status=1
    }
  done
  return $status
}

# Each alone, and twice, as two headers that include it would.
headers() { # COMPILER
  compiler=$1
  find include -name '*.hpp' -print0 | sort -z | xargs -0 -r -n 1 -P 2 sh -c '
    name=${2#include/}
    printf "#include \"%s\"\n#include \"%s\"\n" "$name" "$name" |
      $1 -Iinclude -fsyntax-only -x c++ - || { echo "$2 does not compile alone"; exit 1; }
  ' sh "$compiler $strict"
}

# ---- floors: what may be included from where

# A floor, then the floors that it knows.
floor_rules() {
  cat <<'RULES'
core
trace core
system core
selector core system
loop core system selector
net core system selector loop
async core system selector loop
tls core system selector loop net async
http core system selector loop net async tls
sim core system selector loop net async tls http trace
RULES
}

floors() {
  status=0
  for folder in lib/*/ include/pawl/*/; do
    floor=$(basename "$folder")
    known=$(floor_rules | sed -n "s/^$floor\b/ $floor/p")
    if [ -z "$known" ]; then
      echo "$folder: not a floor that floor_rules knows"
      status=1
    fi
    climbing_includes "$folder" "$known " && status=1
  done
  return $status
}

# The includes of a folder that name a floor it doesn't know; true if there is one.
climbing_includes() { # FOLDER KNOWN
  every_floor=" $(floor_rules | sed 's/ .*//' | tr '\n' ' ')"
  grep -rnE '^ *# *include *("|<pawl/)' "$1" | awk -v known="$2" -v every="$every_floor" '
    {
      path = $0
      sub(/.*# *include *["<]/, "", path)
      sub(/^pawl\//, "", path)
      floor = path
      sub(/\/.*/, "", floor)
      climbs = index(every, " " floor " ") && !index(known, " " floor " ")
      if (climbs || floor == "..") { print; found = 1 }
    }
    END { exit !found }'
}

# ---- who asks what a script does

# Where all that installs, builds and measures only says that it was started.
helps() {
  started=$PWD/.build/helps
  rm -rf "$started"
  mkdir -p "$started"
  for program in apt-get sudo meson ninja g++ c++ clang++ cmake make valgrind strace pkg-config; do
    printf '#!/bin/sh\necho "%s $*" >>"%s/calls"\nexit 1\n' $program "$started" >"$started/$program"
    chmod 755 "$started/$program"
  done
  status=0
  for script in test/run.sh examples/run.sh test/bench/run.sh test/bench/count.sh \
    test/bench/echo.sh test/bench/hold.sh; do
    said=$(PATH="$started:$PATH" sh $script --help 2>&1) || said="ended with status $?: $said"
    case $said in
      usage:*) ;;
      *) echo "$script --help $said" && status=1 ;;
    esac
  done
  [ ! -f "$started/calls" ] || { cat "$started/calls"; status=1; }
  return $status
}

# ---- what the library may not call

# Looks into the object files, because a bare `close()` in the text may be a member function.
objects_of() { # FLOOR
  find "$build"/lib -path '*/libpawl.*.p/*' -name "$1_*.o" | sort
}

# Prints the calls to functions that match; true if there is one.
calls_any() { # EXTENDED-REGULAR-EXPRESSION OBJECT...
  names=$1
  shift
  nm -A -C -u "$@" | sed 's/.*\.p\///' | grep -E " U ($names)(@.*)?$"
}

sockets='socket|socketpair|bind|listen|accept4?|connect|send(to|msg|mmsg)?|recv(from|msg|mmsg)?|shutdown'
sockets="$sockets|[gs]etsockopt|getsockname|getpeername|getaddrinfo|getnameinfo|gethostbyname"
files='open(at)?(64)?|close|p?read(v|64)?|p?write(v|64)?|pipe2?|dup[23]?|fcntl(64)?|ioctl|f?stat(64)?|unlink'
waiting='p?poll|p?select|epoll_[a-z0-9_]*|eventfd|timerfd_[a-z]*|signalfd|u?sleep|nanosleep|clock_nanosleep'
clocks='clock_gettime|gettimeofday|time|std::chrono::_V2::[a-z]*_clock::now\(\)'
chance='getrandom|getentropy|s?rand|random|std::random_device::.*'
processes='fork|vfork|exec[lv]p?e?|posix_spawnp?|waitpid|waitid|wait4|kill|syscall|system|popen'

# The loop and what stands on it reach the operating system through System and nothing else.
system_calls() {
  above=
  for floor in loop net async tls http sim trace; do
    above="$above $(objects_of $floor)"
  done
  forbidden="$sockets|$files|$waiting|$clocks|$chance|$processes"
  # Inline functions of the headers are in no object file until someone calls them.
  status=0
  for floor in loop net async tls http sim trace; do
    for folder in lib/$floor include/pawl/$floor; do
      [ -d "$folder" ] &&
        grep -rnE "(^|[^A-Za-z0-9_>])::($forbidden) *\(" "$folder" | grep -v ':[0-9]*: *//' && status=1
    done
  done
  [ -z "$(echo $above)" ] || { calls_any "$forbidden" $above && status=1; }
  return $status
}

# Nor does it end the process. What debug mode reports goes through one file.
prints() {
  everything=$(objects_of '*' | grep -v '/loop_reporter\.cpp\.o$')
  [ -n "$everything" ] || { echo "nothing is built in $build"; return 1; }
  printing='v?f?printf|__v?f?printf_chk|v?dprintf|puts|putchar|fput[cs]|fwrite|perror|v?syslog'
  streams='stdout|stderr|std::(cout|cerr|clog)'
  ending='abort|exit|quick_exit|__assert_fail'
  calls_any "$printing|$streams|$ending" $everything && return 1
  return 0
}

# ---- 32-bit programs

# What a public header says mustn't depend on _FILE_OFFSET_BITS and _TIME_BITS, which the library and
# its user may have chosen differently; and an atomic number of 64 bits is a lock on some processors
# and wants a library more.
widths() {
  changing='(off|ino|time|suseconds|blkcnt|rlim|fsblkcnt|fsfilcnt)_t|timespec|timeval|itimerspec|struct stat[a-z0-9]*|rlimit'
  status=0
  grep -rnE "(^|[^A-Za-z0-9_])($changing)([^A-Za-z0-9_]|$)" include | grep -vE ':[0-9]+: *//' && status=1
  grep -rnE 'atomic<(std::)?(u?int64_t|(unsigned )?long long|TimePoint|Duration)' include lib && status=1
  return $status
}

# ---- README.md's first program

readme() {
  [ -f README.md ] || { echo 'there is no README.md'; return 1; }
  folder=.build/readme
  mkdir -p $folder
  awk '/^```/ { if (on) exit; on = /^```cpp$/; next } on' README.md >$folder/main.cpp
  lines=$(wc -l <$folder/main.cpp)
  [ "$lines" -gt 0 ] || { echo 'README.md shows no program between ```cpp and ```'; return 1; }
  [ "$lines" -le 20 ] || { echo "README.md's program has $lines lines; 20 is the most"; return 1; }
  g++ $strict -Iinclude $folder/main.cpp -o $folder/main "$build/lib/libpawl.a" -pthread -lev -lcares &&
    timeout 20 $folder/main
}

"$@"
