# SPDX-License-Identifier: Apache-2.0
# Completion of spindle-system-riscv64 for bash. Options, machines, processors, devices and their properties are asked from the
# program itself, so that this file has no list that could grow old.

# Words behind the last comma: what stands before it is kept in front of each.
_spindle_system_properties()
{
    local current=$1 words=$2 front=${1%,*},
    local last=${current##*,}
    mapfile -t COMPREPLY < <(compgen -P "$front" -S = -W "$words" -- "$last")
    compopt -o nospace 2>/dev/null || true
}

# COMPREPLY for the words as they are typed.
_spindle_system_words()
{
    local current=$1 before=$2 program=$3 words
    case $before in
    -M | -machine | --machine)
        words=$("$program" -machine help 2>/dev/null | sed '1d; s/ .*//')
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        ;;
    -cpu | --cpu)
        words=$("$program" -cpu help 2>/dev/null | sed 's/ .*//')
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        ;;
    -device | --device)
        case $current in
        *,*)
            words=$("$program" -device "${current%%,*},help" 2>/dev/null | sed 's/^.*properties: //; s/,//g')
            _spindle_system_properties "$current" "$words"
            ;;
        *)
            words=$("$program" -device help 2>/dev/null | sed 's/^name "\([^"]*\)".*/\1/')
            mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
            ;;
        esac
        ;;
    -drive | --drive)
        case $current in
        file=* | *,file=*)
            words=${current##*file=}
            [[ $words == *,* ]] && _spindle_system_properties "$current" \
                "format if id cache discard detect-zeroes aio read-only" && return
            mapfile -t COMPREPLY < <(compgen -P "${current%"$words"}" -f -- "$words")
            compopt -o nospace -o filenames 2>/dev/null || true
            ;;
        *) _spindle_system_properties ",$current" "file format if id cache discard detect-zeroes aio read-only"
            COMPREPLY=("${COMPREPLY[@]#,}") ;;
        esac
        ;;
    -kernel | -initrd | -bios | -dtb | -pidfile | --kernel | --initrd | --bios | --dtb | --pidfile)
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        ;;
    -serial | -monitor | -qmp | --serial | --monitor | --qmp)
        mapfile -t COMPREPLY < <(compgen -W "stdio mon:stdio null none pty file: unix: tcp: chardev:" -- "$current")
        ;;
    -display | -vga | -net | -nic | --display | --vga | --net | --nic)
        mapfile -t COMPREPLY < <(compgen -W none -- "$current")
        ;;
    -accel | --accel)
        mapfile -t COMPREPLY < <(compgen -W tcg -- "$current")
        ;;
    -chardev | --chardev)
        mapfile -t COMPREPLY < <(compgen -S ,id= -W "null stdio file socket pty" -- "$current")
        compopt -o nospace 2>/dev/null || true
        ;;
    *)
        words=$("$program" -help 2>/dev/null | sed -n 's/^  \(-[A-Za-z-]*\).*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        ;;
    esac
}

# readline cuts words at "=" and ":", too: they are taken from the line, and what readline knows already is left out of the answers.
_spindle_system_riscv64()
{
    local line=${COMP_LINE:0:COMP_POINT} known typed
    read -r -a typed <<<"$line"
    [ "${line: -1}" != ' ' ] || typed+=('')
    local count=${#typed[@]}
    _spindle_system_words "${typed[count - 1]}" "${typed[count - 2]}" "${typed[0]}"
    known=${typed[count - 1]}
    case $known in
    *[=:]*)
        known=${known%"${known##*[=:]}"}
        COMPREPLY=("${COMPREPLY[@]#"$known"}")
        ;;
    esac
}

complete -o filenames -F _spindle_system_riscv64 spindle-system-riscv64
