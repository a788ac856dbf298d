//! The control socket: JSON-RPC 2.0 over a Unix stream, one message a line (05 §1, §2).

pub mod client;
pub(crate) mod error;
mod lines;
mod message;
pub(crate) mod methods;
pub(crate) mod server;

/// The longest request line, bytes.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
