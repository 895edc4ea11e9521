//! Stores files: all of them or none.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Why nothing was stored.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("cannot write `{}`: {reason}", path.display())]
#[diagnostic(help("check that the folder exists, can be written to, and has space"))]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub reason: std::io::Error,
}

/// Writes each file under a temporary name in its own folder, and when all have reached the disk, renames them. A rename that fails
/// takes back those before it, so that no file of this call is left; an older file of that name may then be gone.
pub fn write(files: &[(&Path, &[u8])]) -> Result<(), Error> {
    let mut staged = Vec::with_capacity(files.len());
    for (path, bytes) in files {
        let file = stage(path, bytes).map_err(|reason| Error { path: path.to_path_buf(), reason })?;
        staged.push((*path, file));
    }
    let mut done: Vec<&Path> = Vec::new();
    for (path, file) in staged {
        if let Err(error) = file.persist(path) {
            for path in done {
                let _ = std::fs::remove_file(path);
            }
            return Err(Error { path: path.to_path_buf(), reason: error.error });
        }
        done.push(path);
    }
    Ok(())
}

fn stage(path: &Path, bytes: &[u8]) -> std::io::Result<tempfile::NamedTempFile> {
    if path.is_dir() {
        return Err(std::io::Error::other("it is a folder"));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tucano-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Less what the user's mask takes away.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.tuc"), folder.path().join("a.rs"));
        write(&[(&a, b"blob"), (&b, b"text")]).unwrap();
        assert_eq!(std::fs::read(&a).unwrap(), b"blob");
        assert_eq!(std::fs::read(&b).unwrap(), b"text");

        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.tuc"), folder.path().join("absent/a.rs"));
        let error = write(&[(&a, b"blob"), (&b, b"text")]).unwrap_err();
        assert_eq!(error.path, b);
        assert!(error.to_string().contains("a.rs"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");

        let c = folder.path().join("folder");
        std::fs::create_dir(&c).unwrap();
        assert!(write(&[(&a, b"blob"), (&c, b"text")]).is_err());
        assert!(!a.exists());
    }
}
