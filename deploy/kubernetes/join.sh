#!/bin/sh
# Writes udp-backend.yaml anew: the files of base/ in the order of its kustomization.
set -eu
cd "$(dirname "$0")/base"
{
	echo "# udp-backend as the pod network of a cluster:  kubectl apply -f udp-backend.yaml"
	echo "# Made of the files in base/ by join.sh: edit those."
	sed -n 's/^  - //p' kustomization.yaml | while read -r file; do
		echo ---
		cat "$file"
	done
} >../udp-backend.yaml
