#!/bin/sh
# Takes the scripts of others that the console uses from the npm registry: src/http/assets/vendor/ has them, each with
# its licence, its version and its checksum. To update one, change its version here and run this; no build needs it.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Takes files of a package: take FOLDER PACKAGE VERSION FILE...
take() {
    target=$1/$2
    package=$2
    version=$3
    shift 3
    rm -rf "$work/package" "$target"
    mkdir -p "$target"
    (cd "$work" && tar -xzf "$(npm pack --silent "$package@$version")")
    for file do
        cp "$work/package/$file" "$target/"
    done
    chmod 644 "$target"/*
    echo "$package $version ($(sed -n 's/^ *"license": *"\(.*\)".*/\1/p' "$work/package/package.json"))" \
        >"$target/VERSION"
    (cd "$target" && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS)
}

take vendor htmx.org 2.0.11 dist/htmx.min.js LICENSE
take vendor uplot 1.6.32 dist/uPlot.iife.min.js dist/uPlot.min.css LICENSE
# Only for the tests of accessibility.
take ../../../tests/it/console/vendor axe-core 4.14.1 axe.min.js LICENSE
