# SPDX-License-Identifier: Apache-2.0
# Completion of spindle-storage-daemon for bash. Options, drivers, types and keys are asked from the program's own help, so that this
# file has no list that could grow old.

# The words "key=" and the values of a tag (drivers, types) that `--OPTION help` prints.
_spindle_storage_daemon_help()
{
    "$1" "$2" "$3" 2>/dev/null | sed -n "s/^  \([a-z][a-z.-]*\)=.*/\1=/p; /^Values of/,\$s/^  \([a-z][a-z0-9_-]*\) .*/\1/p"
}

_spindle_storage_daemon()
{
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]}
    local typed=${COMP_LINE:0:COMP_POINT} option element head words
    # Words are cut at "=" and ":" too: the option and its argument are taken from the line itself.
    typed=${typed##*[[:space:]]}
    option=${COMP_LINE:0:COMP_POINT-${#typed}}
    option=${option%"${option##*[![:space:]]}"}
    option=${option##*[[:space:]]}
    case $option in
    --blockdev | --chardev | --export | --monitor | --nbd-server | --object)
        element=${typed##*,}
        head=${typed%"$element"}
        case $element in
        *=*) return ;; # a value: file names and numbers are for readline's default
        esac
        words=$(_spindle_storage_daemon_help "$program" "$option" "${head}help")
        compopt -o nospace 2>/dev/null
        head=${head##*[=:]} # readline replaces only what stands behind its last break
        mapfile -t COMPREPLY < <(compgen -P "$head" -W "$words help" -- "$element")
        return
        ;;
    --sandbox)
        mapfile -t COMPREPLY < <(compgen -W "on off" -- "$current")
        return
        ;;
    --pidfile)
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
        ;;
    -T | --trace)
        mapfile -t COMPREPLY < <(compgen -W "$("$program" --trace help 2>/dev/null) help" -- "$current")
        return
        ;;
    esac
    [ "$before" = "=" ] && return
    words=$("$program" --help 2>/dev/null | sed -n 's/^  \(--[a-z-]*\).*/\1/p')
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -o default -F _spindle_storage_daemon spindle-storage-daemon qemu-storage-daemon
