//! What a vat asks of the web, and what it is told (04 §3).

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Pairs of names and values, in order.
pub type HeaderList = Vec<(Arc<str>, Arc<str>)>;

/// What becomes of an answer that points elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Redirects {
    /// Followed on the same host; to another it is an error.
    #[default]
    SameHost,
    /// Followed to every host that the vat may reach.
    Follow,
    /// An error.
    Error,
    /// The vat is told.
    Manual,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchRequest {
    /// `GET`, …
    pub method: Arc<str>,
    /// Absolute.
    pub url: Arc<str>,
    /// Its own headers.
    pub headers: HeaderList,
    /// Its body.
    pub body: Option<Vec<u8>>,
    /// How far it goes.
    pub redirects: Redirects,
}

/// One answer, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchResponse {
    /// Its status.
    pub status: u16,
    /// Who answered in the end.
    pub url: String,
    /// Whether that is somebody else than was asked.
    pub redirected: bool,
    /// Its headers.
    pub headers: HeaderList,
    /// Its body.
    pub body: Vec<u8>,
}

/// What came of a request; a failure in a few words.
pub type FetchOutcome = Result<FetchResponse, String>;
