#!/usr/bin/env bash
# A private PostgreSQL for tests: `start` makes a throw-away cluster on a free loopback port and prints the shell
# lines that name it (eval them), `stop` ends exactly that cluster and removes it.
#
#   eval "$(scripts/postgres.sh start)"     # sets RINGFENCE_TEST_POSTGRES and RINGFENCE_TEST_POSTGRES_DIR
#   scripts/postgres.sh stop
set -euo pipefail

say() { echo "postgres: $*" >&2; }
fail() { say "$*"; exit 1; }

# The folder with initdb and pg_ctl; PostgreSQL's own packages keep them off the PATH.
find_binaries() {
  local folder
  for folder in "$(dirname "$(command -v initdb || echo /none/initdb)")" \
    "$(pg_config --bindir 2>/dev/null || echo /none)" /usr/lib/postgresql/*/bin /usr/local/pgsql/bin; do
    if [[ -x $folder/initdb && -x $folder/pg_ctl ]]; then BIN=$folder; fi
  done
  [[ -n ${BIN:-} ]]
}

install_binaries() {
  local advice="install PostgreSQL 13 or newer (Debian and Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; macOS: brew install postgresql) and try again"
  command -v apt-get >/dev/null || fail "there is no initdb on this machine; $advice"
  ((EUID == 0)) || fail "there is no initdb on this machine, and installing it needs root; $advice"
  say "there is no initdb on this machine: installing Debian's package postgresql"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql; } >&2 ||
    fail "apt-get could not install it; $advice"
  find_binaries || fail "it is installed, and still there is no initdb; $advice"
}

# PostgreSQL does not run as root: then it runs as an account that owns nothing else.
as_owner() {
  if ((EUID == 0)); then setpriv --reuid="$OWNER" --regid="$(id -g "$OWNER")" --clear-groups -- "$@"; else "$@"; fi
}

free_port() {
  local port
  for _ in {1..50}; do
    port=$((RANDOM % 20000 + 20000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return; fi
  done
  fail "no free port was found"
}

start() {
  find_binaries || install_binaries
  OWNER=$(id -un)
  if ((EUID == 0)); then OWNER=$(id -un postgres 2>/dev/null || id -un nobody); fi
  local port
  dir=$(mktemp -d "${TMPDIR:-/tmp}/ringfence-postgres.XXXXXX")
  # Until the server is there and named, its folder is this script's to remove.
  trap 'RINGFENCE_TEST_POSTGRES_DIR=$dir stop; rm -rf -- "$dir"' EXIT
  if ((EUID == 0)); then chown "$OWNER" "$dir"; fi
  as_owner "$BIN/initdb" -D "$dir/data" -U ringfence -A trust -E UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1 ||
    { cat "$dir/initdb.log" >&2; fail "initdb failed"; }
  for _ in 1 2 3; do
    port=$(free_port)
    # Durability is off: nothing here outlives the tests. A crash of a host under test loses nothing by it.
    if as_owner "$BIN/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 -o "-p $port -h 127.0.0.1 -k $dir \
      -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=400 -c shared_buffers=128MB" \
      start >/dev/null 2>&1 </dev/null; then
      say "$("$BIN/postgres" --version) on port $port, in $dir"
      echo "export RINGFENCE_TEST_POSTGRES=postgres://ringfence@127.0.0.1:$port/postgres"
      echo "export RINGFENCE_TEST_POSTGRES_DIR=$dir"
      trap - EXIT
      return
    fi
  done
  cat "$dir/log" >&2
  fail "the server did not start"
}

stop() {
  local dir=${RINGFENCE_TEST_POSTGRES_DIR:-}
  [[ -n $dir && -d $dir/data ]] || return 0
  find_binaries || return 0
  OWNER=$(stat -c %U "$dir/data")
  as_owner "$BIN/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1 </dev/null || true
  rm -rf -- "$dir"
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  *) fail "say start or stop" ;;
esac
