//! Calls per second between two vats and between two kernels over loopback, how soon a peer that is back answers, and
//! what a launch costs; everything durable (`synchronous=FULL`).
//!
//! `cargo bench -p capstan-host`. Each line gives the 10th, 50th and 90th percentile of its rounds.
#![expect(clippy::print_stdout, reason = "a bench prints its results")]

use anyhow::{Result, anyhow};
use capstan_host::measure::{Line, one_more_vat};
use capstan_host::{Host, HostConfig};
use std::time::{Duration, Instant};

/// Calls of one round, and how many of them are in flight at a time.
const CALLS: u32 = 2_000;
const IN_FLIGHT: u32 = 64;
const ROUNDS: usize = 15;
const LAUNCHES: usize = 60;
const LONE_CALLS: usize = 300;
const RETURNS: usize = 15;
/// How long a peer is away: its dialler has then tried often.
const AWAY: Duration = Duration::from_millis(700);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let homes = [tempfile::tempdir()?, tempfile::tempdir()?];
    let ann = Host::start(HostConfig { workers: 2, ..HostConfig::new(homes[0].path()) }).await?;
    let bob = Host::start(HostConfig { workers: 2, ..HostConfig::new(homes[1].path()) }).await?;
    let near = Line::within(&ann).await?;
    report("one vat to another, calls/s", rates(&near).await?);
    report("one call of a vat alone, µs", lone(&near).await?);
    report("a further vat, ms", launches(&ann).await?);
    let far = Line::across(&ann, &bob).await?;
    report("one kernel to another, calls/s", rates(&far).await?);
    report("one call of a far vat alone, µs", lone(&far).await?);
    report("a waiting call, the peer back, ms", returns(&ann).await?);
    tokio::join!(ann.stop(), bob.stop());
    Ok(())
}

async fn rates(line: &Line) -> Result<Vec<f64>> {
    line.calls(CALLS, IN_FLIGHT).await?; // The first round warms up.
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        rates.push(f64::from(CALLS) / line.calls(CALLS, IN_FLIGHT).await?.as_secs_f64());
    }
    Ok(rates)
}

async fn lone(line: &Line) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..LONE_CALLS {
        times.push(line.call().await?.as_secs_f64() * 1e6);
    }
    Ok(times)
}

async fn launches(host: &Host) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..LAUNCHES {
        times.push(one_more_vat(host).await?.as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// From the start of a peer to the answer of a call that waited for it: more than the time since it listens again.
async fn returns(ann: &Host) -> Result<Vec<f64>> {
    let home = tempfile::tempdir()?;
    let mut config = HostConfig { workers: 2, ..HostConfig::new(home.path()) };
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    let mut cid = Host::start(config.clone()).await?;
    let port = cid.listen().iter().find_map(|address| address.split('/').nth(4)?.parse::<u16>().ok());
    let port = port.ok_or_else(|| anyhow!("no TCP port among {:?}", cid.listen()))?;
    config.listen = vec![format!("/ip4/127.0.0.1/tcp/{port}")];
    let line = Line::across(ann, &cid).await?;
    let mut times = Vec::new();
    for _ in 0..RETURNS {
        cid.stop().await;
        let waiting = line.clone();
        let waiting = tokio::spawn(async move { waiting.call().await.map(|_| Instant::now()) });
        tokio::time::sleep(AWAY).await;
        let since = Instant::now();
        cid = Host::start(config.clone()).await?;
        let answered = waiting.await??;
        times.push(answered.saturating_duration_since(since).as_secs_f64() * 1e3);
    }
    cid.stop().await;
    Ok(times)
}

fn report(what: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| values.get(values.len() * percent / 100).copied().unwrap_or_default();
    println!("{what:<36} p10 {:>10.1}  p50 {:>10.1}  p90 {:>10.1}", at(10), at(50), at(90));
}
