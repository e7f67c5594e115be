# SPDX-License-Identifier: Apache-2.0
# Completion of spindle-riscv64 for bash. Options and processors are asked from the program itself. Behind the program's name come its
# own arguments: file names.

_spindle_riscv64()
{
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]} words= is_argument= i
    for ((i = 1; i < COMP_CWORD; i++)); do # is the program named already?
        case ${COMP_WORDS[i]} in
        -L | -cpu | -E | -U | -0 | -s | -r | -d | -D) i=$((i + 1)) ;;
        -*) ;;
        *) before='' is_argument=1 ;;
        esac
    done
    case $before in
    -cpu) words=$("$program" -cpu help 2>/dev/null | sed 1d) ;;
    -d) words=strace ;;
    -L)
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
        return
        ;;
    *)
        case $is_argument$current in
        -*) words=$("$program" --help 2>/dev/null | grep -oE '^  --?[A-Za-z0-9][A-Za-z-]*') ;;
        esac
        ;;
    esac
    if [ -n "$words" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}

complete -o filenames -F _spindle_riscv64 spindle-riscv64
