# Gives a cluster a small disk of its own, in a mount namespace that ends with us: only the data is there, not the
# write-ahead log, so that a full disk fails statements and not the server.
# Arguments: size of the disk, uid and gid of the server, then a command that finds the directory in TENANTD_PG_DIR.
umask 077; trap '' PIPE; trap : HUP INT TERM
size=$1; uid=$2; gid=$3; shift 3
dir=$(mktemp -d /tmp/tenantd-pg-XXXXXX) && mkdir "$dir/data" || exit 1
if mount -t tmpfs -o "size=$size,mode=0700,uid=$uid,gid=$gid" tmpfs "$dir/data" && chown "$uid:$gid" "$dir"
then TENANTD_PG_DIR=$dir setpriv --reuid "$uid" --regid "$gid" --clear-groups "$@"
fi
umount "$dir/data"; rm -rf "$dir"
