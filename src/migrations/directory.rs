//! A directory of migrations, read once: what others may write, and what lies elsewhere, is refused.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::set::SetError;

/// The `.sql` files of a directory, in the order of their names.
///
/// # Errors
/// When one cannot be read, lies elsewhere, or may be written by others.
pub(super) fn read(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, SetError> {
    let wrap = |path: &Path| {
        let path = path.to_owned();
        move |source| SetError::Io { path, source }
    };
    let mut files = Vec::new();
    let home = dir.canonicalize().map_err(wrap(dir))?;
    for entry in fs::read_dir(dir).map_err(wrap(dir))? {
        let entry = entry.map_err(wrap(dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".sql") && !name.starts_with('.') {
            let path = entry.path();
            let target = path.canonicalize().map_err(wrap(&path))?;
            if !target.starts_with(&home) {
                return Err(SetError::Outside { path, target });
            }
            writable(&path, &fs::metadata(&path).map_err(wrap(&path))?)?;
            let bytes = fs::read(&path).map_err(wrap(&path))?;
            files.push((name, bytes));
        }
    }
    writable(dir, &fs::metadata(dir).map_err(wrap(dir))?)?;
    files.sort();
    Ok(files)
}

/// Refuses what others may write.
fn writable(path: &Path, meta: &fs::Metadata) -> Result<(), SetError> {
    let mode = meta.mode() & 0o7777;
    writers(mode, meta.uid(), meta.gid()).map_or(Ok(()), |by| {
        Err(SetError::Writable {
            path: path.to_owned(),
            by,
            mode,
        })
    })
}

/// Who may write beside the owner. A group with the owner's number is the owner's own.
fn writers(mode: u32, uid: u32, gid: u32) -> Option<&'static str> {
    if mode & 0o002 != 0 {
        Some("everybody")
    } else if mode & 0o020 != 0 && uid != gid {
        Some("its group")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{super::MigrationSet, *};

    /// A directory of one file, removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let dir =
                std::env::temp_dir().join(format!("tenantd-set-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            let it = Self(dir);
            fs::write(it.0.join("1_a.sql"), "CREATE TABLE a ();").unwrap();
            it.chmod("", 0o755);
            it.chmod("1_a.sql", 0o644);
            it
        }

        fn chmod(&self, name: &str, mode: u32) {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }

        fn refusal(&self) -> String {
            MigrationSet::load(&self.0).unwrap_err().to_string()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_directory_or_file_that_others_may_write_is_refused() {
        let dir = Directory::new("writable");
        MigrationSet::load(&dir.0).unwrap();
        dir.chmod("1_a.sql", 0o666);
        let refusal = dir.refusal();
        assert!(
            refusal.contains("1_a.sql may be written by everybody (mode 0666)"),
            "{refusal}"
        );
        assert!(refusal.contains("chmod o-w"), "{refusal}");
        dir.chmod("1_a.sql", 0o644);
        dir.chmod("", 0o1777);
        let refusal = dir.refusal();
        assert!(
            refusal.contains("may be written by everybody (mode 1777)"),
            "{refusal}"
        );
    }

    #[test]
    fn a_group_may_write_only_where_it_is_the_owners_own() {
        assert_eq!(writers(0o664, 1000, 1000), None);
        assert_eq!(writers(0o664, 1000, 33), Some("its group"));
        assert_eq!(writers(0o2755, 1000, 33), None);
        assert_eq!(writers(0o666, 1000, 1000), Some("everybody"));
    }

    #[test]
    fn a_link_may_not_lead_out_of_the_directory() {
        let dir = Directory::new("link");
        fs::create_dir_all(dir.0.join("..data")).unwrap();
        fs::write(dir.0.join("..data/2_b.sql"), "CREATE TABLE b ();").unwrap();
        std::os::unix::fs::symlink("..data/2_b.sql", dir.0.join("2_b.sql")).unwrap();
        assert_eq!(MigrationSet::load(&dir.0).unwrap().files().len(), 2);
        std::os::unix::fs::symlink("/etc/passwd", dir.0.join("3_c.sql")).unwrap();
        let refusal = dir.refusal();
        assert!(
            refusal.contains("3_c.sql leads out of its directory, to /etc/passwd"),
            "{refusal}"
        );
    }
}
