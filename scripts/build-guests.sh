#!/usr/bin/env bash
# Builds all guests of guest-examples/ into target/guests/<name>.wasm, the hostile ones into
# target/guests/hostile/<name>.wasm. Does nothing, quickly, when nothing changed.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT BUILT="$ROOT/guest-examples/target/wasm32-wasip2/release" OUT="$ROOT/target/guests"

"$ROOT/scripts/guest-toolchain.sh"
# shellcheck source=/dev/null
. "$ROOT/.guest-toolchain/env"

# The guests' own target folder, flags and profile, whatever the caller builds the host with.
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
cd "$ROOT/guest-examples"
CARGO_TARGET_DIR="$ROOT/guest-examples/target" \
  cargo build --quiet --locked --release --target wasm32-wasip2 --workspace --lib --examples

changed=0
publish() { # built file, folder, name
  if ! cmp -s "$1" "$2/$3.wasm"; then
    mkdir -p "$2"
    # A host may be reading the old one: replace, never overwrite.
    cp "$1" "$2/.$3.$$" && mv "$2/.$3.$$" "$2/$3.wasm"
    changed=$((changed + 1))
  fi
}
for manifest in */Cargo.toml; do
  name=$(basename "$(dirname "$manifest")")
  if [[ -f $BUILT/${name//-/_}.wasm ]]; then publish "$BUILT/${name//-/_}.wasm" "$OUT" "$name"; fi
done
for source in hostile/guests/*.rs; do
  name=$(basename "$source" .rs)
  publish "$BUILT/examples/${name//-/_}.wasm" "$OUT/hostile" "$name"
done
if ((changed)); then echo "guests: $changed new or changed in target/guests/"; fi
