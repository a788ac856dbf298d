//! What two kernels say to each other, all of it pure: frames, the handshake and what it decides, window
//! arithmetic, the per-peer link machine, `ocap:` URLs and identity (03 A–D).
//!
//! **Invariant:** no socket, no clock, no randomness, no store. Everything is a value or a function of values.
#![deny(clippy::wildcard_enum_match_arm)]

pub mod decide;
pub mod facts;
pub mod frame;
pub mod handshake;
pub mod identity;
pub mod link;
pub mod relay_pool;
pub mod seam;
pub mod url;
pub mod window;
