#!/bin/sh
# Makes the image of the examples from the static busybox of this machine and loads it into an
# engine: image.sh <docker command…>. Nothing is downloaded.
set -eu

name=jaco-hello:1
"$@" image inspect "$name" >/dev/null 2>&1 && exit 0
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/bin" "$tree/www" "$tree/tmp" "$tree/data" "$tree/etc"
cp "$(command -v busybox)" "$tree/bin/busybox"
for applet in $("$tree/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$tree/bin/$applet"
done
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > "$tree/etc/passwd"
tar -C "$tree" -c . | "$@" import --change 'CMD ["sh"]' - "$name" >/dev/null
