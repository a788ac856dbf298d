//! A program that a host runs as a part of itself: its network, or a vat.

use std::ffi::OsString;
use std::path::PathBuf;

/// What is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments; nothing secret, others can read them.
    pub arguments: Vec<OsString>,
}
