//! The files that a vat may look at (04 §3): those under one directory, and no symbolic links.
//!
//! A path is followed part by part from the open directory, and no part may be a link: what is found is under the
//! directory, whatever others do there meanwhile.

use capstan_model::file::{FileOutcome, FileRequest, FileVerb};
use capstan_model::vat::FileAccess;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

/// The longest file that a vat can read, bytes.
const FILE_BYTES_MAX: u64 = 10_000_000;

/// Does what a vat asked for, if it may. Blocks as the disk does.
pub fn look(access: &FileAccess, request: &FileRequest) -> FileOutcome {
    let (name, allowed) = match request.verb {
        FileVerb::ReadFile => ("readFile", access.read_file),
        FileVerb::Access => ("access", access.access),
    };
    if !allowed {
        return Err(format!("fs.{name} was not given"));
    }
    let done = match request.verb {
        FileVerb::ReadFile => read(&access.root_dir, &request.path),
        FileVerb::Access => open(&access.root_dir, &request.path).map(|_| Vec::new()),
    };
    done.map_err(|why| format!("fs.{name}: {why}"))
}

/// Whether there is a file or directory that the vat may look at. Blocks as the disk does.
///
/// # Errors
/// A path that leaves the directory, a link, or what the disk says.
pub fn exists(access: &FileAccess, path: &str) -> Result<bool, String> {
    let absent = |error: &Error| matches!(error, Error::Failed(Errno::NOENT | Errno::NOTDIR, _));
    match find(&access.root_dir, path) {
        Ok(_) => Ok(true),
        Err(error) if absent(&error) => Ok(false),
        Err(error) => Err(format!("fs.existsSync: {error}")),
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{path} is outside allowed root {root}")]
    Outside { path: String, root: String },
    #[error("Symlinks are prohibited: {0}")]
    Link(String),
    #[error("{1}: {0}")]
    Failed(Errno, String),
    #[error("{1}: {0}")]
    Unread(std::io::Error, String),
    #[error("{0} is not a regular file")]
    Irregular(String),
    #[error("{0} is longer than {FILE_BYTES_MAX} bytes")]
    Long(String),
}

fn read(root: &str, path: &str) -> Result<Vec<u8>, Error> {
    let file = File::from(open(root, path)?);
    let unread = |error| Error::Unread(error, path.to_owned());
    if !file.metadata().map_err(unread)?.is_file() {
        return Err(Error::Irregular(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > FILE_BYTES_MAX { Err(Error::Long(path.to_owned())) } else { Ok(bytes) }
}

fn open(root: &str, path: &str) -> Result<OwnedFd, Error> {
    let (directory, name) = find(root, path)?;
    // Without waiting: whoever opens a pipe waits for its writer.
    open_at(&directory, &name, OFlags::NONBLOCK, path)
}

/// Returns the open directory that a path leads to, and the name in it, of something that exists and is no link.
fn find(root: &str, path: &str) -> Result<(OwnedFd, OsString), Error> {
    let outside = || Error::Outside { path: path.to_owned(), root: root.to_owned() };
    let mut parts = below(Path::new(root), Path::new(path)).ok_or_else(outside)?;
    let name = parts.pop().unwrap_or_else(|| ".".into());
    let failed = |errno| Error::Failed(errno, path.to_owned());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = rustix::fs::open(root, flags, Mode::empty()).map_err(failed)?;
    for part in &parts {
        directory = open_at(&directory, part, OFlags::DIRECTORY, path)?;
    }
    let found = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
        return Err(Error::Link(path.to_owned()));
    }
    Ok((directory, name))
}

fn open_at(directory: &OwnedFd, name: &OsStr, flags: OFlags, path: &str) -> Result<OwnedFd, Error> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let is_link = || {
        let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Symlink)
    };
    rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::LOOP => Error::Link(path.to_owned()),
        // A link where a directory is wanted is no directory.
        Errno::NOTDIR if is_link() => Error::Link(path.to_owned()),
        errno => Error::Failed(errno, path.to_owned()),
    })
}

/// The parts of a path from the root on, by name alone; `None` if it leaves the root.
fn below(root: &Path, path: &Path) -> Option<Vec<OsString>> {
    let tidy = |path: &Path| {
        let mut parts = Vec::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => parts.push(name.to_owned()),
                Component::ParentDir => drop(parts.pop()),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        parts
    };
    let whole = tidy(&root.join(path));
    let root = tidy(root);
    whole.starts_with(&root).then(|| whole[root.len()..].to_vec())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn said(root: &Path, verb: FileVerb, path: &str) -> Result<String, String> {
        let root_dir = root.to_str().unwrap().into();
        let access = FileAccess { root_dir, exists_sync: true, read_file: true, access: true };
        look(&access, &FileRequest { verb, path: path.into() }).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn only_what_lies_below_the_root_and_is_no_link_is_found() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("given");
        fs::create_dir_all(root.join("in/deep")).unwrap();
        fs::write(root.join("in/deep/a.txt"), "a").unwrap();
        fs::write(home.path().join("secret"), "secret").unwrap();
        symlink("../secret", root.join("link")).unwrap();
        symlink("in/deep/a.txt", root.join("inner-link")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("in", root.join("in-link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), Mode::RWXU).unwrap();
        let root_text = root.display().to_string();
        let read = |path: &str| said(&root, FileVerb::ReadFile, path);
        for path in [
            "in/deep/a.txt",
            "./in/../in/deep//a.txt",
            &format!("{root_text}/in/deep/a.txt"),
            "nothing/../in/deep/a.txt",
        ] {
            assert_eq!(read(path), Ok("a".into()), "{path}");
            assert_eq!(said(&root, FileVerb::Access, path), Ok(String::new()));
        }
        let sibling = format!("{root_text}-sibling/a");
        for path in ["../secret", "/", "in/../../secret", "..", "", &sibling].map(str::to_owned) {
            let why = match path.as_str() {
                "" => "fs.readFile:  is not a regular file".to_owned(),
                _ => format!("fs.readFile: {path} is outside allowed root {root_text}"),
            };
            assert_eq!(read(&path), Err(why));
        }
        for path in ["link", "inner-link", "up/secret", "up/given/in/deep/a.txt", "in-link/deep/a.txt"] {
            let why = format!("Symlinks are prohibited: {path}");
            assert_eq!(read(path), Err(format!("fs.readFile: {why}")));
            assert_eq!(said(&root, FileVerb::Access, path), Err(format!("fs.access: {why}")));
        }
        assert_eq!(read("pipe"), Err("fs.readFile: pipe is not a regular file".into()));
        assert_eq!(read("in"), Err("fs.readFile: in is not a regular file".into()));
        assert!(read("absent").unwrap_err().starts_with("fs.readFile: absent: No such file"));
        assert!(read("a\0b").is_err());
        fs::write(root.join("long"), vec![0; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert_eq!(read("long"), Err("fs.readFile: long is longer than 10000000 bytes".into()));
    }

    #[test]
    fn what_was_not_given_is_refused() {
        let access = FileAccess { root_dir: "/".into(), exists_sync: true, read_file: false, access: false };
        for (verb, name) in [(FileVerb::ReadFile, "readFile"), (FileVerb::Access, "access")] {
            let outcome = look(&access, &FileRequest { verb, path: "etc".into() });
            assert_eq!(outcome, Err(format!("fs.{name} was not given")));
        }
        assert_eq!((exists(&access, "dev/null"), exists(&access, "absent/x")), (Ok(true), Ok(false)));
    }
}
