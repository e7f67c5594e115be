# SPDX-License-Identifier: Apache-2.0
# Completion of spindle-img for bash. Commands and options are asked from the program's own help, so that this file has no list
# that could grow old.

_spindle_img()
{
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]}
    local command=${COMP_WORDS[1]} help
    if [ "$COMP_CWORD" -eq 1 ]; then
        help=$("$program" --help 2>/dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p; s/^.*\(--[a-z]*\).*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$help" -- "$current")
        return
    fi
    case $before in
    -f | -F | -O | --format | --source-format | --target-format | --backing-format | --a-format | --b-format)
        help=$("$program" --help 2>/dev/null | sed -n 's/^Supported formats://p')
        mapfile -t COMPREPLY < <(compgen -W "$help" -- "$current")
        return
        ;;
    -t | -T | --cache | --source-cache | --target-cache)
        mapfile -t COMPREPLY < <(compgen -W "none writeback writethrough directsync unsafe" -- "$current")
        return
        ;;
    --output)
        mapfile -t COMPREPLY < <(compgen -W "human json" -- "$current")
        return
        ;;
    -r | --repair)
        if [ "$command" = check ]; then
            mapfile -t COMPREPLY < <(compgen -W "leaks all" -- "$current")
            return
        fi
        ;;
    esac
    case $current in
    -*)
        help=$("$program" "$command" --help 2>/dev/null | grep -oE '(^| )--?[A-Za-z][A-Za-z-]*')
        mapfile -t COMPREPLY < <(compgen -W "$help" -- "$current")
        ;;
    *)
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        ;;
    esac
}

complete -o filenames -F _spindle_img spindle-img
