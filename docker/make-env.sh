#!/bin/sh
# Makes what docker-compose.yml needs and leaves what is there: .env from .env.example, a file a secret in docker/secrets
# (48 random hexadecimal digits, or what an .env of an earlier version has), and the folders that the trainer works in.
set -eu
cd "$(dirname "$0")/.."
umask 077

# who the trainer is: never root, whose files it would write and whose rights it would have
uid=$(id -u) gid=$(id -g)
[ "$uid" != 0 ] || { uid=${SUDO_UID:-0} gid=${SUDO_GID:-0}; }
[ "$uid" != 0 ] || { uid=10001 gid=10001; }
[ "$gid" != 0 ] || gid=$uid

mkdir -p docker/secrets
for name in postgres_password mlflow_db_password optuna_db_password mlflow_secret_key mlflow_admin_password \
    mlflow_trainer_password mlflow_serving_password s3_secret_key; do
    [ ! -e "docker/secrets/$name" ] || continue
    variable=$(echo "$name" | tr '[:lower:]' '[:upper:]')
    value=$([ ! -e .env ] || sed -n "s/^$variable=//p" .env)
    [ -n "$value" ] || value=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    printf '%s' "$value" > "docker/secrets/$name"
    chmod 444 "docker/secrets/$name" # for the users in the containers; the folder is closed to others here
done
chmod 700 docker/secrets
for file in docker/with-secrets.sh docker/accounts.py docker/databases.sql docker/auth.ini; do
    [ ! -e "$file" ] || chmod a+r "$file"
done

if [ ! -e .env ]; then
    cpus=$(docker info --format '{{.NCPU}}' 2> /dev/null) || cpus=$(getconf _NPROCESSORS_ONLN)
    memory=$(docker info --format '{{.MemTotal}}' 2> /dev/null) || memory=0
    case $memory in
        '' | 0 | *[!0-9]*) memory=$(($(getconf _PHYS_PAGES 2> /dev/null || echo 1398102) * 4096)) ;;
    esac
    case $cpus in
        '' | 0 | *[!0-9]*) cpus=1 ;;
    esac
    sed -e "s/^TRAINER_UID=.*/TRAINER_UID=$uid/" -e "s/^TRAINER_GID=.*/TRAINER_GID=$gid/" \
        -e "s/^TRAINER_CPUS=.*/TRAINER_CPUS=$cpus/" \
        -e "s/^TRAINER_MEMORY=.*/TRAINER_MEMORY=$((memory / 4 * 3 / 1048576))m/" .env.example > .env
    echo "made .env and docker/secrets; MLflow's account is admin, its password in docker/secrets/mlflow_admin_password"
else
    # of an earlier version: no secret stays where the service's settings are, and no trainer is root
    sed -E -e '/^(POSTGRES|MLFLOW_DB|OPTUNA_DB|MLFLOW_ADMIN)_PASSWORD=/d' \
        -e '/^(MLFLOW_SECRET_KEY|S3_SECRET_KEY|MLFLOW_USERNAME|MLFLOW_PASSWORD)=/d' \
        -e "s/^TRAINER_UID=0*$/TRAINER_UID=$uid/" -e "s/^TRAINER_GID=0*$/TRAINER_GID=$gid/" .env > .env.new
    grep -q '^SECRETS_DIR=' .env.new || echo "SECRETS_DIR=./docker/secrets" >> .env.new
    if cmp -s .env .env.new; then
        rm .env.new
        echo "there is a .env already; it is left as it is"
    else
        mv .env.new .env
        echo "moved the secrets of .env to docker/secrets"
    fi
fi

umask 022
for folder in recordings data runs results; do
    [ ! -d "$folder" ] || continue
    mkdir "$folder"
    [ "$(id -u)" != 0 ] || chown "$uid:$gid" "$folder"
done
if [ "$(id -u)" = 0 ] && [ "${SUDO_UID:-0}" != 0 ]; then
    chown -R "$uid:$gid" .env docker/secrets
fi
