//! Both ends over a stream in memory.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail by panicking")]

mod boundary;
mod ends;
mod serial;
mod start;
mod stream;
