#!/bin/sh
# apt-install.sh PACKAGE...: install Debian packages, or say which to install and fail.
# An N in a name stands for the newest PostgreSQL for which apt has the first such package.
set -eu

refuse() {
    echo "$1: install $packages (Debian's names, N for a version of PostgreSQL)" >&2
    exit 1
}

packages=$*
command -v apt-get > /dev/null || refuse "no apt-get here"
if [ "$(id -u)" = 0 ]; then
    root=
elif sudo -n true 2> /dev/null; then
    root=sudo
else
    refuse "apt-get needs root"
fi

$root apt-get update --quiet --quiet
case $packages in *-N-*)
    pattern=$(printf '%s\n' "$@" | grep -e '-N-' | head -n 1 | sed 's/-N-/-[0-9]+-/')
    version=$(apt-cache search --names-only "^$pattern\$" | sed 's/^[a-z]*-\([0-9]*\)-.*/\1/' | sort -n | tail -n 1)
    [ -n "$version" ] || refuse "apt has no package $pattern"
    packages=$(printf '%s\n' "$@" | sed "s/-N-/-$version-/")
esac
# shellcheck disable=SC2086: a list of words
$root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends $packages
