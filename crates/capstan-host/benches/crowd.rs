//! Many vats in one host: the memory of the process with a thousand, and how long a start with a hundred takes.
//!
//! `cargo bench -p capstan-host --bench crowd`
#![expect(clippy::print_stdout, reason = "a bench prints its results")]

use anyhow::Result;
use capstan_host::measure::{one_more_vat, resident_kib};
use capstan_host::{Host, HostConfig};
use std::time::Instant;

const STARTED: usize = 100;
const STARTS: usize = 5;
const CROWD: usize = 1000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let home = tempfile::tempdir()?;
    let config = || HostConfig { workers: 2, ..HostConfig::new(home.path()) };
    let mut host = Host::start(config()).await?;
    for _ in 0..STARTED {
        one_more_vat(&host).await?;
    }
    let mut times = Vec::new();
    for _ in 0..STARTS {
        host.stop().await;
        let since = Instant::now();
        host = Host::start(config()).await?;
        let ready = since.elapsed();
        // One that is launched now is up only when those before it are.
        one_more_vat(&host).await?;
        times.push((ready, since.elapsed()));
    }
    times.sort_unstable();
    if let [best, .., worst] = times.as_slice() {
        let middle = times.get(STARTS / 2).unwrap_or(best);
        println!(
            "a start with {STARTED} vats, ready and all of them up: best {best:?}, middle {middle:?}, worst {worst:?}"
        );
    }
    let (vats, before) = (STARTED + STARTS, resident_kib().unwrap_or_default());
    for _ in vats..CROWD {
        one_more_vat(&host).await?;
    }
    let kib = resident_kib().unwrap_or_default();
    println!(
        "{CROWD} vats: {} MiB in all, {} KiB each",
        kib / 1024,
        kib.saturating_sub(before) / (CROWD - vats) as u64
    );
    host.stop().await;
    Ok(())
}
