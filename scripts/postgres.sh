# shellcheck shell=bash
# Sourced: finds the PostgreSQL server programs where the cloud's embedded PostgreSQL looks for them.

# Prints the folder of `postgres` and `initdb`: PATH first, then the newest installed version.
postgres_bin() {
  local program dir
  for program in $(type -ap postgres) $(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -rV); do
    dir=$(dirname "$(readlink -f "$program")")
    if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ]; then
      echo "$dir"
      return 0
    fi
  done
  return 1
}
