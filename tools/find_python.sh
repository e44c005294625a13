#!/usr/bin/env bash
# Prints the Python to make .venv with: the one given, else the first of python3.11, python3.10, python3.9 and
# python3 that runs and is 3.9 to 3.11. Otherwise one line on standard error and exit code 1.
set -euo pipefail

if [[ "$(uname -sm)" != 'Linux x86_64' ]]; then
  echo "seer_tf runs on Linux x86_64 only (Reverb has no other wheels); this is $(uname -sm)." >&2
  exit 1
fi

seen=()
for name in ${1:-python3.11 python3.10 python3.9 python3}; do
  # A command that exists may still not run (a pyenv shim, for one): only its answer counts.
  version="$("$name" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)" || continue
  case "$version" in
    3.9.* | 3.10.* | 3.11.*) command -v "$name"; exit ;;
  esac
  seen+=("$name is $version")
done

found="$(IFS=,; echo "${seen[*]:-no ${1:-python3} that runs}")"
echo "Wrong Python: $found; expected 3.9 to 3.11. Install python3.11 or type: make PYTHON=/path/to/python3.11" >&2
exit 1
