# SPDX-License-Identifier: MIT
# usage: sh test/support/build.sh NAME COMPILER TARGETS [OPTION...]
#
# Builds TARGETS (as `meson compile` takes them; empty: everything) in .build/NAME. Starts anew when
# anything said here has changed, or the compiler, or where the project stands.

cd "$(dirname "$0")/../.." || exit
build=.build/$1
compiler=$2
targets=$3
shift 3

wanted="$PWD; $("$compiler" --version | head -n 1); $*"
if [ ! -f "$build/build.ninja" ] || [ "$(cat "$build/configured" 2>/dev/null)" != "$wanted" ]; then
  mkdir -p .build
  rm -rf "$build"
  if command -v ccache >/dev/null; then
    compiler="ccache $compiler"
  fi
  CXX=$compiler meson setup "$build" "$@" >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
  echo "$wanted" >"$build/configured"
fi
exec meson compile -C "$build" --ninja-args=--quiet $targets
