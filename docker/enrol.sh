#!/usr/bin/env bash
# Enrol the three hospitals of compose.yaml at its server, all on this machine: a request is made in
# each courier's container, signed in the server's, and installed in the courier's. No key travels.
#
#   cd docker && ./enrol.sh [NAME ...]
set -euo pipefail
cd "$(dirname "$0")"
inside() { docker compose run --rm -T --no-deps "$@"; }

[ $# -gt 0 ] || set -- university county rural
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for name in "$@"; do
    inside "$name-courier" sh -c 'wardround-site enroll --out /tmp/r.csr >&2 && cat /tmp/r.csr' \
        > "$folder/$name.csr"
    inside server sh -c "cat > /tmp/r.csr &&
        wardround-server admit /tmp/r.csr --name $name --out /tmp/a.json >&2 && cat /tmp/a.json" \
        < "$folder/$name.csr" > "$folder/$name.admission.json"
    inside "$name-courier" sh -c 'cat > /tmp/a.json && wardround-site join /tmp/a.json' \
        < "$folder/$name.admission.json"
done
