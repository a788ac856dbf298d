//! Real vats through the public interface.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod baggage;
mod collections;
mod durable;
mod escape;
mod examples;
mod exos;
mod fetch;
mod files;
mod garbage;
mod globals;
mod hardening;
mod limits;
mod promises;
mod smallcaps;
mod start;
mod strings;
mod timers;
mod world;
