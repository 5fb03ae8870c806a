# SPDX-License-Identifier: MIT
# For test/run.sh, examples/run.sh and test/bench to source: installs what is missing.
#
#   need PACKAGE PROBE...   notes the Debian package unless the command PROBE succeeds
#   want PACKAGE PROBE...   the same for what isn't needed: who uses it skips without it
#   install_missing         installs what was noted; a complete machine makes no apt call. What can't
#                           be installed is told: needed, it exits 3 with the line to run; else it
#                           goes on.

missing_packages=
wanted_packages=
probes=

need() {
  note "$@" || missing_packages="$missing_packages $1"
}

want() {
  note "$@" || wanted_packages="$wanted_packages $1"
}

# False when it is missing; how that was found is kept, to look again later.
note() {
  probes="$probes$*
"
  shift
  "$@" >/dev/null 2>&1
}

has_command() {
  command -v "$1"
}

# By the compiler, which knows where headers are; without one the package is asked for anyway.
has_header() {
  echo "#include <$1>" | g++ -E -x c++ -
}

makes_32_bit_programs() {
  program=$(mktemp) || return
  echo '#include <vector>
    int main() { return std::vector<int>().capacity(); }' |
    g++ -m32 -x c++ - -o "$program" && "$program"
  made=$?
  rm -f "$program"
  return $made
}

has_clang_sanitizers() {
  ls "$(clang++ -print-runtime-dir)" | grep asan
}

# `nc` is also the name of netcats that know neither -U nor -N.
has_openbsd_nc() {
  nc -h 2>&1 | grep OpenBSD
}

# Debian keeps each version's programs in a folder of their own, out of PATH.
has_postgresql() {
  ls /usr/lib/postgresql/*/bin/initdb
}

# What every build of pawl wants.
need_build_tools() {
  need g++ has_command g++
  need meson has_command meson
  need ninja-build has_command ninja
  need pkg-config has_command pkg-config
  need libev-dev has_header ev.h
  need libc-ares-dev has_header ares.h
}

install_missing() {
  [ -n "$missing_packages$wanted_packages" ] || return 0
  echo "installing:$missing_packages$wanted_packages"
  if as_root true 2>/dev/null; then
    as_root apt-get update -q
    as_root sh -c "$apt_install" sh $missing_packages $wanted_packages && return 0
    # One that can't be had keeps apt-get from installing all others, so each gets its chance.
    for package in $missing_packages $wanted_packages; do
      as_root sh -c "$apt_install" sh "$package" >/dev/null 2>&1
    done
  fi
  missing_packages=$(still_missing $missing_packages)
  wanted_packages=$(still_missing $wanted_packages)
  if [ -n "$missing_packages" ]; then
    echo 'could not install what is missing. As root, run:' >&2
    install_line $missing_packages $wanted_packages >&2
    exit 3
  elif [ -n "$wanted_packages" ]; then
    echo 'skipped: what these packages are wanted for. As root, run:'
    install_line $wanted_packages
  fi
}

# Those of the packages that the machine still shows no sign of.
still_missing() { # PACKAGE...
  for package; do
    printf '%s' "$probes" | while read -r noted probe; do
      if [ "$noted" = "$package" ]; then
        $probe >/dev/null 2>&1 || echo "$package"
      fi
    done
  done | tr '\n' ' ' | sed 's/ $//'
}

install_line() { # PACKAGE...
  echo "apt-get update && apt-get install -y --no-install-recommends $*"
}

# The tests need the programs of nginx, HAProxy, PostgreSQL and redis, not Debian's services: those
# aren't started now (invoke-rc.d(8): a policy of 101 forbids it), nor with the machine.
apt_install='
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    trap "rm -f $policy" EXIT
    trap "exit 1" HUP INT TERM
    printf "#!/bin/sh\nexit 101\n" >$policy && chmod 755 $policy || exit
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" || exit
  command -v systemctl >/dev/null || exit 0
  for package; do
    case $package in
      nginx-light) systemctl --quiet disable nginx ;;
      haproxy | postgresql | redis-server) systemctl --quiet disable $package ;;
    esac
  done
'

as_root() {
  if ! has_command apt-get >/dev/null; then
    return 1
  elif [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif ! has_command sudo >/dev/null; then
    return 1
  elif [ -t 0 ]; then
    sudo "$@"
  else
    sudo -n "$@" # no one is there to type a password
  fi
}
