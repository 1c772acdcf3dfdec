#!/bin/sh
# Makes .env from .env.example: every empty value becomes a secret of 48 random hexadecimal digits.
set -eu
cd "$(dirname "$0")/.."
[ ! -e .env ] || { echo "there is a .env already; it is left as it is" >&2; exit 1; }
umask 077
while IFS= read -r line; do
    case $line in
        [A-Z]*=) line=$line$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n') ;;
        TRAINER_UID=*) line=TRAINER_UID=$(id -u) ;;
        TRAINER_GID=*) line=TRAINER_GID=$(id -g) ;;
    esac
    printf '%s\n' "$line"
done < .env.example > .env
echo "made .env; MLflow's account is admin with MLFLOW_ADMIN_PASSWORD"
