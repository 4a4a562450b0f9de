#!/usr/bin/env bash
# Makes sure that Rust and a C compiler are there. Installs what it can, and says what to do where it cannot.
set -euo pipefail

if ! command -v cargo >/dev/null; then
  echo "There is no cargo on this machine. Install Rust (1.95 or newer) with rustup, https://rustup.rs, and try again." >&2
  exit 1
fi
version=$(rustc --version | sed -nE 's/^rustc ([0-9]+)\.([0-9]+).*/\1 \2/p')
read -r major minor <<<"$version"
if ((major == 1 && minor < 95)); then
  echo "Rust 1.$minor is too old: 1.95 or newer is needed. \`rustup update stable\` brings it." >&2
  exit 1
fi

# SQLite and the cryptography are built from C.
if ! command -v cc >/dev/null; then
  if command -v apt-get >/dev/null && ((EUID == 0)); then
    echo "There is no C compiler: installing Debian's gcc and libc6-dev"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev; } >/dev/null
  else
    echo "There is no C compiler (cc). Install one (Debian and Ubuntu: apt-get install gcc libc6-dev) and try again." >&2
    exit 1
  fi
fi
