//! What tests and benches of a host have in common: sources, configurations, calls.
#![allow(dead_code, clippy::unwrap_used, reason = "tests and benches each use a part, and fail by panicking")]

use capstan_host::{Host, HostConfig, Launched, code_hash};
use capstan_kernel::host_op::{LaunchConfig, VatConfig};
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, ObjectId};
use capstan_model::vat::{CodeFormat, VatCode, VatLimits};
use std::path::Path;
use std::time::Duration;

/// No wait is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const COUNTER: &str = include_str!("../../../../examples/counter.js");
pub(crate) const CHATTER: &str = include_str!("../../../../examples/chatter.js");

/// Starts a host with the defaults under `home`.
pub(crate) async fn host(home: &Path) -> Host {
    within(Host::start(HostConfig { workers: 2, ..HostConfig::new(home) })).await.expect("a host")
}

/// Fails when something takes for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// A subcluster of one vat, its `bootstrap` optional.
pub(crate) fn single(source: &str) -> LaunchConfig {
    let vat = VatConfig {
        name: "main".into(),
        code: VatCode { format: CodeFormat::Module, name: "main.js".into(), text: source.into() },
        code_hash: code_hash(source),
        parameters: None,
        limits: VatLimits::default(),
        endowments: Default::default(),
    };
    LaunchConfig {
        bootstrap: "main".into(),
        bootstrap_optional: true,
        vats: vec![vat],
        services: Vec::new(),
        text: "{}".into(),
    }
}

/// Launches one vat and returns its root.
pub(crate) async fn launch(host: &Host, source: &str) -> Launched {
    within(host.launch(single(source))).await.expect("a launch")
}

/// `[method, args]`, the arguments in smallcaps, `$N` naming the references.
pub(crate) fn methargs(method: &str, args: &str, references: &[ObjectId]) -> CapData<KRef> {
    let slots = references.iter().map(|object| KRef::Object(*object)).collect();
    CapData { body: format!(r##"#["{method}",{args}]"##).into(), slots }
}

/// Calls and returns the body of what the call fulfilled with.
pub(crate) async fn call(
    host: &Host,
    target: ObjectId,
    method: &str,
    args: &str,
    references: &[ObjectId],
) -> String {
    let settled =
        within(host.send(target.into(), methargs(method, args, references))).await.expect("a settlement");
    assert!(!settled.rejected, "{method}: {}", settled.value.body);
    settled.value.body.to_string()
}
