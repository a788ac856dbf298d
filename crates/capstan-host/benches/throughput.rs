//! Calls per second between two vats and between two kernels over loopback, and what a launch costs; everything
//! durable (`synchronous=FULL`).
//!
//! `cargo bench -p capstan-host`. Each line gives the 10th, 50th and 90th percentile of its rounds.
#![expect(clippy::print_stdout, reason = "a bench prints its results")]

#[path = "../tests/support/mod.rs"]
mod support;

use capstan_host::Host;
use capstan_model::id::ObjectId;
use std::time::Instant;
use support::{call, host, launch};

/// Calls of one round, and how many of them are in flight at a time.
const CALLS: u32 = 2_000;
const IN_FLIGHT: u32 = 64;
const ROUNDS: usize = 15;
const LAUNCHES: usize = 60;
const LONE_CALLS: usize = 300;

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

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let homes = [tempfile::tempdir(), tempfile::tempdir()].map(|home| home.expect("a directory"));
    let (ann, bob) = (host(homes[0].path()).await, host(homes[1].path()).await);
    let caller = launch(&ann, CALLER).await.root;
    let echo = launch(&ann, ECHO).await.root;
    report("one vat to another, calls/s", rates(&ann, caller, echo).await);
    report("one call of a vat alone, µs", lone(&ann, echo).await);
    report("a further vat, ms", launches(&ann).await);

    let far_echo = launch(&bob, ECHO).await.root;
    let url = bob.issue_url(far_echo).await.expect("a URL");
    let far_echo = ann.redeem_url(&url).await.expect("a redemption");
    report("one kernel to another, calls/s", rates(&ann, caller, far_echo).await);
    report("one call of a far vat alone, µs", lone(&ann, far_echo).await);
    tokio::join!(ann.stop(), bob.stop());
}

async fn rates(host: &Host, caller: ObjectId, echo: ObjectId) -> Vec<f64> {
    let mut rates = Vec::new();
    for round in 0..=ROUNDS {
        let start = Instant::now();
        call(host, caller, "run", &format!(r#"["$0",{CALLS},{IN_FLIGHT}]"#), &[echo]).await;
        // The first round warms up.
        if round > 0 {
            rates.push(f64::from(CALLS) / start.elapsed().as_secs_f64());
        }
    }
    rates
}

async fn lone(host: &Host, echo: ObjectId) -> Vec<f64> {
    let mut times = Vec::new();
    for _ in 0..LONE_CALLS {
        let start = Instant::now();
        call(host, echo, "echo", "[1]", &[]).await;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times
}

async fn launches(host: &Host) -> Vec<f64> {
    let mut times = Vec::new();
    for _ in 0..LAUNCHES {
        let start = Instant::now();
        launch(host, ECHO).await;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times
}

fn report(what: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| values.get(values.len() * percent / 100).copied().unwrap_or_default();
    println!("{what:<36} p10 {:>10.1}  p50 {:>10.1}  p90 {:>10.1}", at(10), at(50), at(90));
}
