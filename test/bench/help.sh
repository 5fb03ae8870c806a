# SPDX-License-Identifier: MIT
# For the scripts here to source first: --help prints the comment that they begin with, and for run.sh
# what its program says; nothing is installed or built for it.
for argument; do
  case $argument in
    -h | --help)
      echo "usage: sh $0 [ARGUMENT...]"
      sed -n '/^#!/d; /SPDX/d; /^#/!q; s/^# \{0,1\}//p' "$0"
      if [ "$(basename "$0")" = run.sh ]; then
        sed -n '/^ *R"(/,/^)";/{ s/^ *R"(//; /^)";/d; p; }' "$(dirname "$0")/main.cpp"
      fi
      exit
      ;;
  esac
done
