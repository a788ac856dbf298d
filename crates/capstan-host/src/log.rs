//! What is said to the log, through `tracing`.
//!
//! Targets: `kernel` for the core, `vat` with the field `vat` for vats, and `tag` "console" for what they say themselves, `capstan_host` for this crate. No line
//! carries key material: the core never has any, and this crate's secrets have no `Debug`.

use capstan_kernel::effect::LogLevel;
use capstan_model::id::VatId;

/// A line of the kernel.
pub(crate) fn kernel(level: LogLevel, text: &str) {
    match level {
        LogLevel::Debug => tracing::debug!(target: "kernel", "{text}"),
        LogLevel::Info => tracing::info!(target: "kernel", "{text}"),
        LogLevel::Warn => tracing::warn!(target: "kernel", "{text}"),
        LogLevel::Error => tracing::error!(target: "kernel", "{text}"),
    }
}

/// A line of a vat, or of its runtime about it.
pub(crate) fn vat(vat: VatId, level: &str, console: bool, text: &str) {
    let tag = console.then_some("console");
    match level {
        "debug" => tracing::debug!(target: "vat", %vat, tag, "{text}"),
        "warn" => tracing::warn!(target: "vat", %vat, tag, "{text}"),
        "error" => tracing::error!(target: "vat", %vat, tag, "{text}"),
        _ => tracing::info!(target: "vat", %vat, tag, "{text}"),
    }
}
