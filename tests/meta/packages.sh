#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# If this fails, a test needs a command that no list in tools/packages installs, so it is skipped or fails on a fresh machine.
# labels: quick
# timeout: 60
#
# Every command named in a `# requires:` line must belong to a package that is listed or that a minimal Debian has.
set -euo pipefail
cd "$SPINDLE_SRC"

listed() {
    sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' tools/packages/*.txt
    dpkg-query -W -f '${Package} ${Essential} ${Priority}\n' | awk '$2 == "yes" || $3 == "required" { print $1 }'
}

# The packages of a command, under whichever of its names dpkg knows it: /bin is /usr/bin, and a name may lead through links.
owners() {
    local path
    path=$(command -v "$1") || return 0
    { dpkg-query -S "$path" "${path#/usr}" "/usr$path" "$(readlink -f "$path")" 2>/dev/null || true; } | sed 's/[:,].*//'
}

command -v dpkg-query >/dev/null || exit 77
listed >"$TMPDIR/listed"
requirements() { # lines "COMMAND SCRIPT"
    grep -rn -m1 '^# *requires:' tests --include='*.sh' --include='*.py' | while IFS=: read -r script _ needs; do
        for need in ${needs#*requires:}; do
            echo "$need $script"
        done
    done
}

bad=0
while read -r need script; do # each command once, for asking dpkg takes its time
    if ! owners "$need" | grep -qxFf "$TMPDIR/listed"; then
        echo "$script requires $need, which no list installs (here it belongs to: $(owners "$need" | tr '\n' ' '))"
        bad=1
    fi
done < <(requirements | sort -u -k1,1)
exit $bad
