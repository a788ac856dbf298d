//! Values between people and the kernel: JSON in, smallcaps through the kernel, JSON out (07 "Values").
//!
//! What JSON cannot say is an object with one `@` key; a plain object that has such a key is wrapped in
//! `{"@object": …}`. Reading is strict: an `@` form that is not exactly one of the table is refused.

mod read;
mod show;

pub use read::{Argument, BadValue, argument, parse_argument, urls_of};
pub use show::{rejection, show, value_json};

/// How deep an argument may be nested. The smallcaps decoder stops at 128, and a call wraps its arguments twice.
pub const DEPTH_MAX: usize = 100;

#[cfg(test)]
mod tests;
