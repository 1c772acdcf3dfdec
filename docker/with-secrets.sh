#!/bin/sh
# Runs a command with the content of the file in NAME_FILE as NAME, for each NAME_FILE that names a secret: programs that
# know only variables get theirs, and the container's description (`docker inspect`) has none.
set -eu
for name in $(env | sed -n 's/^\([A-Z0-9_]*\)_FILE=.*\/secrets\/.*/\1/p'); do
    eval "file=\$${name}_FILE"
    [ -r "$file" ] || { echo "$file cannot be read; run sh docker/make-env.sh again" >&2; exit 1; }
    export "$name=$(cat "$file")"
    unset "${name}_FILE"
done
exec "$@"
