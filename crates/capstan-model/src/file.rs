//! What a vat asks of the files that it may look at, and what it is told (04 §3).

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FileVerb {
    /// Its bytes are read.
    ReadFile,
    /// It is looked whether it can be read.
    Access,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileRequest {
    /// What is asked.
    pub verb: FileVerb,
    /// Of which file: absolute, or relative to the vat's directory.
    pub path: Arc<str>,
}

/// What came of it: the bytes, none where nothing is read; or the message of an error.
pub type FileOutcome = Result<Vec<u8>, String>;
