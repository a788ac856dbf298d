//! Vats in JavaScript: our own vat runtime on QuickJS-ng (04).
//!
//! [`Workers`] takes orders (start, deliver, stop) and tells a sink what came of them. One vat is one engine with its
//! own heap and its own hardened realm; a few threads carry all of them. The part of the runtime that lives inside
//! the realm is in `js/`: references, promises, smallcaps, baggage.
//!
//! **Invariant:** no clock, randomness or I/O reaches a vat unless its configuration asks for it; what it says leaves only
//! in the reply to a delivery. What it does by itself, in a timer say, waits until the kernel has it woken.
//! **Invariant:** this crate knows the kernel's vocabulary (`capstan_model::vat`) and nothing else of it.

mod desk;
mod endow;
mod engine;
mod files;
mod freeze;
mod limits;
mod modules;
mod places;
mod program;
mod rejections;
mod rows;
mod timers;
mod workers;

/// TypeScript declarations of everything that the source of a vat may import, and of its globals (04 §9): one `.d.ts`.
pub const VAT_TYPES: &str = include_str!("vat.d.ts");

pub use files::{exists, look};
pub use modules::served_modules;
pub use workers::{Exists, OrderError, Surroundings, VatEvent, Workers};
