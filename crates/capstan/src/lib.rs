//! The command line, the daemon behind it, and the embedding API, which is [`capstan_host`]'s.
//!
//! A command becomes a request on the daemon's control socket ([`rpc`]); the daemon ([`daemon`]) hands it to its
//! kernel. Values are JSON outside and smallcaps inside ([`value`]).
//!
//! **Invariant:** only [`cli`]'s printer writes to standard output, and nothing below `cli` reads the environment.

pub mod cli;
pub mod cluster;
pub mod daemon;
pub mod error;
pub mod home;
pub mod limit;
pub mod links;
pub mod rpc;
pub mod rules;
mod sources;
pub mod url;
pub mod value;

pub use capstan_host as host;
