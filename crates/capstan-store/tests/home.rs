//! One kernel per home.

use crate::child;
use capstan_store::home::{HomeLock, LockError};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

#[test]
fn a_home_has_one_holder_and_is_free_when_that_is_killed() {
    if let Some(dir) = child::workplace() {
        let _lock = HomeLock::acquire(&dir).unwrap();
        child::tell(&format!("locked by {}", std::process::id()));
        // Until the parent is gone, at the latest.
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
        return;
    }
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("home");
    let mut holder = child::spawn("home::a_home_has_one_holder_and_is_free_when_that_is_killed", &home, "");
    let pid: u32 = holder.hear("locked by").unwrap().parse().unwrap();
    let refusal = HomeLock::acquire(&home);
    assert!(matches!(&refusal, Err(LockError::Held { pid: Some(held), .. }) if *held == pid), "{refusal:?}");
    assert!(refusal.unwrap_err().to_string().ends_with(&format!("is in use by process {pid}")));
    holder.kill("");
    let lock = HomeLock::acquire(&home).unwrap();
    assert_eq!(lock.dir(), home);
    assert!(matches!(HomeLock::acquire(&home), Err(LockError::Held { .. })));
    drop(lock);
    HomeLock::acquire(&home).unwrap();
}

#[test]
fn a_home_is_closed_to_others() {
    let dir = TempDir::new().unwrap();
    let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
    let _new = HomeLock::acquire(&dir.path().join("a/b")).unwrap();
    assert_eq!((mode("a/b"), mode("a/b/lock")), (0o700, 0o600));
    fs::create_dir(dir.path().join("open")).unwrap();
    fs::set_permissions(dir.path().join("open"), Permissions::from_mode(0o755)).unwrap();
    let _open = HomeLock::acquire(&dir.path().join("open")).unwrap();
    assert_eq!(mode("open"), 0o700);
}

#[test]
fn a_directory_for_everybody_is_no_home() {
    let dir = TempDir::new().unwrap();
    let shared = dir.path().join("tmp");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
    assert!(matches!(HomeLock::acquire(&shared), Err(LockError::Shared(_))));
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(HomeLock::acquire(&dir.path().join("file")), Err(LockError::File { .. })));
}
