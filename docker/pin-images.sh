#!/bin/sh
# Shows the digests that the registry has now for the tags of docker-compose.yml and Dockerfile, for all platforms; with
# --write puts them into .env (POSTGRES_IMAGE, S3_IMAGE) and Dockerfile (BASE). Needs Docker with buildx and a network.
set -eu
cd "$(dirname "$0")/.."
digest() {
    docker buildx imagetools inspect "$1" --format '{{.Manifest.Digest}}'
}
for name in POSTGRES_IMAGE S3_IMAGE BASE; do
    image=$(sed -n -e "s/.*\${$name:-\([^@}]*\).*/\1/p" -e "s/^ARG $name=\([^@]*\).*/\1/p" docker-compose.yml Dockerfile)
    found=$(digest "$image")
    case $found in
        sha256:*) ;;
        *) echo "$image: the registry gives no digest" >&2; exit 1 ;;
    esac
    echo "$name=$image@$found"
    [ "${1:-}" = --write ] || continue
    if [ "$name" = BASE ]; then
        sed "s|^ARG BASE=.*|ARG BASE=$image@$found|" Dockerfile > Dockerfile.new && mv Dockerfile.new Dockerfile
    else
        [ -e .env ] || { echo "run sh docker/make-env.sh first" >&2; exit 1; }
        { sed "/^$name=/d" .env; echo "$name=$image@$found"; } > .env.new
        chmod 600 .env.new && mv .env.new .env
    fi
done
