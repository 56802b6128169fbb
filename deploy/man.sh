#!/bin/sh
# Manual pages from the program's own help: one for the daemon, one for each of its commands.
#
#   man.sh PROGRAM VERSION DIRECTORY
#
# Owns the way from a help text to the form that help2man reads. What the pages say is the program's business.
set -eu
program=$1 version=$2 to=$3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Writes $1.8 with the summary $2 from the help of the command $3, or of the daemon where that is empty.
page() {
	# help2man runs a program of the page's name. 500 columns: it breaks lines itself.
	cat >"$work/$1" <<-SCRIPT
		#!/bin/sh
		COLUMNS=500 '$program' $3 --help | sed \\
			-e 's/^usage: /Usage: /' -e 's/^       udp-backend/  or:  udp-backend/' \\
			-e 's/^options:\$/Options:/' -e 's/^positional arguments:\$/Arguments:/' \\
			-e 's/^FLAGS\$/Options:/' -e 's/^COMMANDS\$/*COMMANDS*/' -e 's/^EXAMPLES\$/Examples:/' \\
			-e 's/^Exit status: \\(.*\\)\$/*EXIT STATUS*\\n\\1/'
	SCRIPT
	chmod +x "$work/$1"
	help2man --no-info --section=8 --manual='System Administration' --source="udp-backend $version" \
		--version-string="$version" --name="$2" --include="$work/also" --output="$to/$1.8" "$work/$1"
}

commands=$("$program" --help | sed -n '/^COMMANDS$/,/^$/s/^  \([a-z-]*\)  *\(.*\)/\1 \2/p')
{
	echo '[see also]'
	echo "$commands" | while read -r name _; do printf '.BR udp-backend-%s (8),\n' "$name"; done
	echo '.BR udp-backend (8)'
} >"$work/also"

mkdir -p "$to"
page udp-backend 'overlay network over plain UDP' ''
echo "$commands" | while read -r name summary; do
	page "udp-backend-$name" "$summary" "$name"
done
