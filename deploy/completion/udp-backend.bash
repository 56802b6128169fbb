# Completion of udp-backend for bash: commands, flags, and files for flags that take one. Needs bash-completion.
#
# Knows no flag: the program's help lists them, so that a new one completes without a change here.

_udp_backend() {
	local cur prev words cword command='' help metavar
	_init_completion -n = || return
	[[ $cword -gt 1 && ${words[1]} != -* ]] && command=${words[1]}
	help=$("${words[0]}" ${command:+"$command"} --help 2>/dev/null) || return

	if [[ $prev == -* && $prev != *=* ]]; then
		# The word behind a flag in the help says what its value is; nothing stands there for a boolean.
		metavar=$(sed -nE "s/^  .*-{1,2}${prev##+(-)}[ =]([A-Z|{][^ ]*).*/\1/p" <<<"$help" | head -n1)
		metavar=${metavar%,}
		case $metavar in
		FILE | PATH) _filedir; return ;;
		DIR) _filedir -d; return ;;
		'{'*'}') metavar=${metavar#\{}; COMPREPLY=($(compgen -W "$(tr , ' ' <<<"${metavar%\}}")" -- "$cur")); return ;;
		?*) return ;;
		esac
	fi
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$(grep -oE -- '(^|[ ,])--[a-z][a-z-]*' <<<"$help" | tr -d ' ,' | sort -u)" -- "$cur"))
	elif [[ $cword -eq 1 ]]; then
		COMPREPLY=($(compgen -W "$(sed -n '/^COMMANDS$/,/^$/s/^  \([a-z-]*\) .*/\1/p' <<<"$help")" -- "$cur"))
	fi
} && complete -F _udp_backend udp-backend
