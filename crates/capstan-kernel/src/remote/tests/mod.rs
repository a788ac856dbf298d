//! Two kernels with the real link machine between them, over a pipe in memory.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod classic;
mod explore;
mod frames;
mod outbox;
mod restart;
mod session;
mod storm;
mod verdict;
mod window;
mod world;
