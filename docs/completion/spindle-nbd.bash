# SPDX-License-Identifier: Apache-2.0
# Completion of spindle-nbd for bash. Options and formats are asked from the program's own help.

_spindle_nbd()
{
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]} words=
    case $before in
    -f | --format) words=$("$program" --help 2>/dev/null | sed -n 's/^Supported formats://p') ;;
    --cache) words="none writeback writethrough directsync unsafe" ;;
    --aio) words="threads native io_uring" ;;
    --discard) words="ignore unmap" ;;
    --detect-zeroes) words="off on unmap" ;;
    esac
    if [ -n "$words" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        return
    fi
    case $current in
    -*)
        words=$("$program" --help 2>/dev/null | grep -oE '(^| )--?[A-Za-z][A-Za-z-]*')
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        ;;
    *)
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        ;;
    esac
}

complete -o filenames -F _spindle_nbd spindle-nbd
