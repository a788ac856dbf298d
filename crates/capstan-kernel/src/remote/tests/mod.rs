//! Two kernels with the real link machine between them, over a pipe in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

mod frames;
mod restart;
mod session;
mod verdict;
mod world;
