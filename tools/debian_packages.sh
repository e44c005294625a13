#!/usr/bin/env bash
# Installs those of the named Debian packages that are missing, when it may (root, or sudo without a password).
# Otherwise one line says what to type, and the exit code is 1.
set -euo pipefail

if ! command -v dpkg-query >/dev/null; then
  echo "Not Debian: going on without looking for the packages that Debian calls $*." >&2
  exit
fi

missing=()
for package in "$@"; do
  [[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

if ((EUID == 0)); then
  root=(env)
elif sudo -n true 2>/dev/null; then
  root=(sudo -n env)
else
  echo "Missing Debian packages. Type: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi

echo "Installing Debian packages: ${missing[*]}"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
apt=("${root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
# A fresh machine has no package lists yet, or old ones that name files no longer there.
"${apt[@]}" update >"$log" 2>&1 </dev/null || true
if ! "${apt[@]}" install --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null; then
  grep -E '^(E|W):' "$log" >&2 || tail -n 5 "$log" >&2
  echo "apt-get could not install ${missing[*]}; mend the cause above and run make again." >&2
  exit 1
fi
