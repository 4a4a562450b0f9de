#!/usr/bin/env bash
# Sets up a compiler for guests (target wasm32-wasip2), and writes .guest-toolchain/env for
# scripts/build-guests.sh to read. Nothing is installed into the system, and no root is needed.
#
#   1. The active Rust toolchain has the target: it is used as it is.
#   2. rustup can fetch the target: it does.
#   3. Neither: the distribution's Rust compiler (Debian, Ubuntu) is unpacked into .guest-toolchain/,
#      and builds the target's standard library there, once.
#
# RINGFENCE_GUEST_TOOLCHAIN=active|rustup|distribution tries only that way.
set -euo pipefail

readonly TARGET=wasm32-wasip2
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT HOME_DIR="$ROOT/.guest-toolchain"
readonly SYSROOT="$HOME_DIR/rust/usr"
readonly WAY=${RINGFENCE_GUEST_TOOLCHAIN:-any}

say() { printf 'guest toolchain: %s\n' "$*"; }
fail() {
  printf 'guest toolchain: %s\n' "$1" >&2
  shift
  if (($#)); then printf '  %s\n' "$@" >&2; fi
  exit 1
}
advice=(
  "Any one of these is enough; then run this again:"
  "- rustup, with access to its server:  rustup target add $TARGET"
  "- a Rust toolchain of your own that has the target $TARGET, first in PATH"
  "- Debian or Ubuntu with access to its package archive (see docs/guests.md)"
)
wants() { [[ $WAY == any || $WAY == "$1" ]]; }

# The environment in which cargo builds guests. Written only when it changes: cargo looks at its
# values, and editors at its time.
write_env() {
  local text=$1
  mkdir -p "$HOME_DIR"
  if [[ ! -f $HOME_DIR/env || $(<"$HOME_DIR/env") != "$text" ]]; then
    printf '%s\n' "$text" >"$HOME_DIR/env"
  fi
}

# --- 1 and 2: the active toolchain ---------------------------------------------------------------

active_has_target() {
  local libraries
  libraries=$(rustc --print target-libdir --target "$TARGET" 2>/dev/null) || return 1
  compgen -G "$libraries/libstd-*.rlib" >/dev/null
}

use_active() {
  write_env '# The active Rust toolchain has the target.'
}

rustup_adds_target() {
  command -v rustup >/dev/null || return 1
  say "asking rustup for $TARGET (at most a minute)"
  RUSTUP_MAX_RETRIES=1 timeout 60 rustup target add "$TARGET" >/dev/null 2>&1 && active_has_target
}

# --- 3: the distribution's compiler --------------------------------------------------------------

distribution_is_ready() { [[ -f $HOME_DIR/ready && -x $HOME_DIR/bin/rustc ]] && "$HOME_DIR/bin/rustc" -V >/dev/null 2>&1; }

# The linker and the component encoder come with the active toolchain (or from PATH).
linker_folders() {
  local host tools folders=() tool folder
  host=$(rustc -vV | sed -n 's/^host: //p')
  tools="$(rustc --print sysroot)/lib/rustlib/$host/bin"
  for tool in wasm-component-ld wasm-ld; do
    folder=
    for candidate in "$tools" "$tools/gcc-ld"; do
      [[ -x $candidate/$tool ]] && folder=$candidate
    done
    if [[ -n $folder ]]; then folders+=("$folder"); elif ! command -v "$tool" >/dev/null; then
      fail "there is no $tool, which links guests" \
        "It comes with rustup's stable toolchain. Else: 'cargo install wasm-component-ld', and wasm-ld from the package lld."
    fi
  done
  (IFS=:; printf '%s' "${folders[*]-}")
}

use_distribution() {
  local folders
  folders=$(linker_folders)
  write_env "# The distribution's Rust compiler, unpacked here.
export RUSTC='$HOME_DIR/bin/rustc'
export PATH='$folders':\"\$PATH\""
}

# Debian's sources from this machine's own apt configuration, so that addresses and keys are the
# machine's own; each once more with the suite of backports, where wasi-libc may be newer.
write_sources() {
  local into=$1 codename=$2 list parts file index=0
  eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
  for file in "$list" "$parts"/*.list "$parts"/*.sources; do
    [[ -f $file ]] || continue
    index=$((index + 1))
    case $file in
      *.list)
        awk -v codename="$codename" '
          $1 != "deb" { next }
          {
            suite = 2
            if ($2 ~ /^\[/) while (suite < NF && $suite !~ /\]$/) suite++; else suite = 1
            suite += 2
            if ($suite !~ "^" codename "([-/]|$)") next
            print
            if ($suite == codename) { $suite = codename "-backports"; print }
          }' "$file" >"$into/$index.list" ;;
      *.sources)
        awk -v codename="$codename" '
          BEGIN { RS = ""; FS = "\n" }
          {
            ours = disabled = whole = 0; backports = ""
            for (i = 1; i <= NF; i++) {
              line = $i
              if (line ~ /^Enabled:[ \t]*(no|false|0)/) disabled = 1
              if (line ~ /^Types:/) line = "Types: deb"
              if (line ~ /^Suites:/) {
                if (line ~ "[ \t]" codename "([-/ \t]|$)") ours = 1
                if (line ~ "[ \t]" codename "([ \t]|$)") whole = 1
                $i = line
                line = "Suites: " codename "-backports"
              } else $i = line
              backports = backports line "\n"
            }
            if (!ours || disabled) next
            for (i = 1; i <= NF; i++) print $i
            print ""
            if (whole) print backports
          }' "$file" >"$into/$index.sources" ;;
    esac
  done
  find "$into" -type f -empty -delete
  compgen -G "$into/*" >/dev/null
}

newest() { # package: the newest version that the private lists know, or nothing
  "${apt_cache[@]}" madison "$1" 2>/dev/null | awk -F ' *[|] *' '{ print $2 }' |
    { best=; while read -r version; do
        if [[ -z $best ]] || dpkg --compare-versions "$version" gt "$best"; then best=$version; fi
      done; printf '%s' "$best"; }
}

# Everything that a package needs and this machine lacks.
missing_closure() {
  "${apt_cache[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances "$1" | sed -n 's/^\([a-z0-9].*\)$/\1/p' | sort -u |
    while read -r name; do
      if [[ $name == "$1" ]] || ! dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q ' installed$'; then
        printf '%s\n' "$name"
      fi
    done
}

fetch_packages() { # folder: downloads all packages into it
  local work=$1 codename
  codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
  [[ -n $codename ]] || fail "this distribution doesn't name its release" "${advice[@]}"
  mkdir -p "$work"/{sources,lists/partial,cache/archives/partial,packages}
  chmod -R a+rX "$work"
  write_sources "$work/sources" "$codename" ||
    fail "apt has no source for $codename" "${advice[@]}"
  local options=(-o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$work/sources"
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache"
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
  apt_cache=(apt-cache "${options[@]}")
  apt_get=(apt-get -q "${options[@]}")

  say "reading the package lists of $codename"
  # A release without backports, or one source that is down, need not matter: what is missing is named below.
  "${apt_get[@]}" update >"$work/update.log" 2>&1 || true

  local rustc='' version='' name candidate development source standard libc
  for name in rustc-web rustc; do
    candidate=$(newest $name)
    if [[ -n $candidate ]] && { [[ -z $version ]] || dpkg --compare-versions "$candidate" gt "$version"; }; then
      rustc=$name version=$candidate
    fi
  done
  [[ -n $rustc ]] || fail "the package archive can't be read, or has no Rust: $(tail -n 1 "$work/update.log")" "${advice[@]}"
  case $rustc in
    rustc-web) development=libstd-rust-web-dev source=rust-web-src ;;
    *) development=libstd-rust-dev source=rust-src ;;
  esac
  libc=$(newest wasi-libc)
  [[ -n $libc ]] || fail "the package archive has no wasi-libc" "${advice[@]}"
  standard=$("${apt_cache[@]}" depends "$development=$version" | sed -n 's/^ *Depends: \(libstd-rust-.*[0-9]\)$/\1/p' | head -n 1)
  [[ -n $standard ]] || fail "can't tell which standard library $rustc $version needs" "${advice[@]}"

  say "downloading the compiler, $rustc $version (about 150 MB)"
  (cd "$work/packages" && chmod a+rwX . && "${apt_get[@]}" download "$rustc=$version" "$development=$version" \
    "$source=$version" "wasi-libc=$libc" $(missing_closure "$standard") >"$work/download.log" 2>&1) ||
    fail "the download failed: $(grep -m 1 '^E:' "$work/download.log" || tail -n 1 "$work/download.log")" "${advice[@]}"
}

# The target's standard library, built once from the compiler's own source.
# With bitcode, because the guests are linked with link-time optimization.
build_standard_library() {
  local work=$1 libraries="$SYSROOT/lib/rustlib/$TARGET/lib"
  mkdir -p "$libraries/self-contained" "$work/std/src"
  cp "$SYSROOT/lib/$TARGET"/*.{o,a} "$libraries/self-contained/"
  : >"$work/std/src/lib.rs"
  cat >"$work/std/Cargo.toml" <<'TOML'
[package]
name = "std-once"
version = "0.0.0"
edition = "2021"
[profile.release]
panic = "abort"
[workspace]
TOML
  say "building the standard library for $TARGET (once, one to two minutes)"
  (cd "$work/std" && RUSTC="$HOME_DIR/bin/rustc" RUSTC_BOOTSTRAP=1 PATH="$(linker_folders):$PATH" \
    CARGO_TARGET_DIR="$work/std/target" RUSTFLAGS=-Cembed-bitcode=yes \
    cargo build -q -Zbuild-std=std,panic_abort --target "$TARGET" --release) ||
    fail "the standard library did not build (see above)" "${advice[@]}"
  find "$work/std/target/$TARGET/release/deps" -name '*.rlib' ! -name 'libstd_once*' -exec cp {} "$libraries/" \;
}

set_up_distribution() {
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "the active Rust toolchain has no $TARGET, rustup can't fetch it, and this is not Debian or Ubuntu" "${advice[@]}"
  command -v cargo >/dev/null || fail "there is no cargo" "${advice[@]}"
  linker_folders >/dev/null
  local work package driver wanted found
  work=$(mktemp -d)
  # Expanded now: the variable is gone by the time of the exit.
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  fetch_packages "$work"

  rm -rf "$HOME_DIR/rust" "$HOME_DIR/ready"
  mkdir -p "$HOME_DIR/rust" "$HOME_DIR/bin"
  say "unpacking"
  for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$HOME_DIR/rust"; done
  [[ -d $SYSROOT/lib/$TARGET ]] || fail "this release's wasi-libc is too old for $TARGET" "${advice[@]}"
  driver=$(compgen -G "$SYSROOT/lib/*/librustc_driver-*.so" | head -n 1)
  local driver_folder=${driver%/*}
  # It finds itself, so that a clone that is moved or mounted elsewhere keeps working.
  cat >"$HOME_DIR/bin/rustc" <<SH
#!/bin/sh
here=\$(cd "\$(dirname "\$0")/.." && pwd)
LD_LIBRARY_PATH="\$here${driver_folder#"$HOME_DIR"}" exec "\$here/rust/usr/bin/rustc" "\$@"
SH
  chmod +x "$HOME_DIR/bin/rustc"
  "$HOME_DIR/bin/rustc" -V >/dev/null || fail "the distribution's compiler does not start" "${advice[@]}"
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
  found=$("$HOME_DIR/bin/rustc" -V | cut -d ' ' -f 2)
  dpkg --compare-versions "$found" ge "$wanted" ||
    fail "the distribution's Rust is $found, and $wanted is needed" "${advice[@]}"

  build_standard_library "$work"
  # Source and documentation served their purpose: 400 MB.
  rm -rf "$SYSROOT/src" "$SYSROOT/share" "$SYSROOT/lib/rustlib/src"
  touch "$HOME_DIR/ready"
  say "ready: $("$HOME_DIR/bin/rustc" -V), unpacked in .guest-toolchain/"
}

# --- -------------------------------------------------------------------------------------------------

command -v rustc >/dev/null || fail "there is no rustc" "Install Rust first: its own site says how."

if wants active && active_has_target; then
  use_active
elif wants distribution && distribution_is_ready; then
  use_distribution
elif wants rustup && rustup_adds_target; then
  say "rustup added $TARGET"
  use_active
elif wants distribution; then
  [[ $WAY == any ]] && say "the active toolchain lacks $TARGET and rustup can't fetch it; taking the distribution's compiler"
  set_up_distribution
  use_distribution
else
  fail "no $TARGET by way of '$WAY'" "${advice[@]}"
fi
