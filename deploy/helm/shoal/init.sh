# The step before the node, as root: $MODE is none, write or remove, $MIRROR
# the mirror's URL.
set -eu
chown 65532:65532 "$DATA_DIR"
[ "$MODE" != none ] || exit 0

mark="# Written by the Helm chart of shoal, which removes it with containerd.mode=remove."
file=$CERTS_DIR/_default/hosts.toml
if [ -e "$file" ] || [ -L "$file" ]; then
	first=
	read -r first <"$file" || :
	if [ "$first" != "$mark" ]; then
		[ "$MODE" = write ] || exit 0
		echo "shoal: $file is not this chart's: add the mirror $MIRROR to it by hand, and set containerd.mode=none" >&2
		exit 1
	fi
fi
if [ "$MODE" = remove ]; then
	rm -f "$file"
	rmdir "$CERTS_DIR/_default" 2>/dev/null || : # others' files may be in it, or nobody made it
	exit 0
fi
mkdir -p "$CERTS_DIR/_default"
printf '%s\n[host."%s"]\n  capabilities = ["pull", "resolve"]\n' "$mark" "$MIRROR" >"$file.new"
mv "$file.new" "$file"
