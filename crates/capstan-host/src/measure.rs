//! What a kernel does on this machine: calls between vats, here or elsewhere, and what one more vat costs. For
//! `capstan bench` and `cargo bench`.
//!
//! The kernels are real ones: with their disk, under whatever durability they were started with.

use crate::code_hash;
use crate::host::Host;
use capstan_kernel::host_op::{LaunchConfig, Refusal, VatConfig};
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, ObjectId};
use capstan_model::vat::{CodeFormat, VatCode, VatLimits};
use std::time::{Duration, Instant};

const ECHO: &str = "import { Far } from '@endo/far';
    export const buildRootObject = () => Far('echo', { echo: n => n });";

/// Keeps `window` calls in flight until `count` have been answered.
const CALLER: &str = "import { E, Far } from '@endo/far';
    export const buildRootObject = () => Far('caller', {
        async run(echo, count, window) {
            let next = 0;
            const lane = async () => { while (next < count) { next += 1; await E(echo).echo(next); } };
            await Promise.all(Array.from({ length: window }, lane));
            return next;
        },
    });";

/// A vat that calls and one that answers.
#[derive(Clone, Debug)]
pub struct Line {
    host: Host,
    caller: ObjectId,
    echo: ObjectId,
}

impl Line {
    /// Between two new vats of one kernel.
    pub async fn within(host: &Host) -> Result<Line, Refusal> {
        let caller = launch(host, CALLER).await?;
        let echo = launch(host, ECHO).await?;
        Ok(Line { host: host.clone(), caller, echo })
    }

    /// From a new vat of `host` to a new vat of `other`, which `host` can dial.
    pub async fn across(host: &Host, other: &Host) -> Result<Line, Refusal> {
        let url = other.issue_url(launch(other, ECHO).await?).await?;
        let caller = launch(host, CALLER).await?;
        let echo = host.redeem_url(&url).await?;
        Ok(Line { host: host.clone(), caller, echo })
    }

    /// Makes `count` calls, `in_flight` at a time, and returns how long they took: until the last answer is durable.
    pub async fn calls(&self, count: u32, in_flight: u32) -> Result<Duration, Refusal> {
        self.run(count, in_flight).await
    }

    /// Makes one call alone, without the caller, and returns how long it took: from asking to the durable answer.
    pub async fn call(&self) -> Result<Duration, Refusal> {
        let methargs = CapData { body: r##"#["echo",[1]]"##.into(), slots: Vec::new() };
        self.timed(self.echo, methargs).await
    }

    async fn run(&self, count: u32, window: u32) -> Result<Duration, Refusal> {
        let body = format!(r##"#["run",["$0",{count},{window}]]"##).into();
        let methargs = CapData { body, slots: vec![KRef::Object(self.echo)] };
        self.timed(self.caller, methargs).await
    }

    async fn timed(&self, target: ObjectId, methargs: CapData<KRef>) -> Result<Duration, Refusal> {
        let since = Instant::now();
        let settled = self.host.send(target.into(), methargs).await?;
        if settled.rejected {
            return Err(Refusal::Internal(format!("a call failed: {}", settled.value.body)));
        }
        Ok(since.elapsed())
    }
}

/// Launches one small vat and returns how long that took.
pub async fn one_more_vat(host: &Host) -> Result<Duration, Refusal> {
    let since = Instant::now();
    launch(host, ECHO).await?;
    Ok(since.elapsed())
}

/// Returns the time that this process has spent on processors so far, in hundredths of a second; `None` where the system
/// does not tell. What a call takes of it depends less on what else runs on the machine than its time does.
pub fn processor_time() -> Option<Duration> {
    let status = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before it may contain anything.
    let mut fields = status.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let sum = ticks()?.saturating_add(ticks()?);
    Some(Duration::from_millis(sum.saturating_mul(10)))
}

/// Returns the memory that this process occupies, KiB; `None` where the system does not tell.
pub fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

async fn launch(host: &Host, source: &str) -> Result<ObjectId, Refusal> {
    let vat = VatConfig {
        name: "main".into(),
        code: VatCode { format: CodeFormat::Module, name: "main.js".into(), text: source.into() },
        code_hash: code_hash(source),
        parameters: None,
        limits: VatLimits::default(),
        endowments: Default::default(),
    };
    let config = LaunchConfig {
        bootstrap: "main".into(),
        bootstrap_optional: true,
        vats: vec![vat],
        services: Vec::new(),
        text: "{}".into(),
    };
    Ok(host.launch(config).await?.root)
}
