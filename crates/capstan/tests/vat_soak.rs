//! Vats that come, work, are restarted and go, all at once. `scripts/vat-soak` does it with 200 of them for minutes.

use crate::kill_soak::{Daemon, Line};
use crate::shell::Shell;
use anyhow::{Context, Result, ensure};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

/// How many vats there are at most, unless `CAPSTAN_VATS` says otherwise.
const VATS: usize = 12;
/// Steps that are taken, unless `CAPSTAN_SECONDS` says how long.
const STEPS: u64 = 80;
/// Calls of one step, all under way together.
const CALLS: u64 = 8;

/// Hands out objects, keeps what others hand to it, and counts durably.
const TRADER: &str = "import { E, Far } from '@endo/far';
import { makeDefaultExo } from '@metamask/kernel-utils/exo';
export function buildRootObject(_vatPowers, _parameters, baggage) {
  let kept = [];
  return makeDefaultExo('trader', {
    bootstrap() {},
    take(thing, answer) {
      if (kept.length > 20) kept = [];
      kept.push(thing, answer);
      baggage.has('n') ? baggage.set('n', baggage.get('n') + 1) : baggage.init('n', 1);
      baggage.init(`k${baggage.get('n')}`, thing);
      if (baggage.get('n') > 5) baggage.delete(`k${baggage.get('n') - 5}`);
      return Far('receipt', { n: () => baggage.get('n') });
    },
    async trade(other) {
      const answer = E(other).take(Far('thing', {}), new Promise(() => {}));
      return E(answer).n();
    },
  });
}";

/// What is in the store, by the names `fsck` counts under.
fn rows(shell: &Shell) -> Result<Json> {
    let found = shell.run(&["fsck"]).done();
    ensure!(found.get("ok") == Some(&json!(true)), "{found}");
    found.get("checked").cloned().context("no counts")
}

/// What the daemon's process holds in memory, KiB; zero where that cannot be read.
fn memory(shell: &Shell) -> u64 {
    let pid = shell.pid().unwrap_or_default();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// One vat of the crowd.
struct Vat {
    subcluster: String,
    vat: String,
    root: String,
}

struct Crowd {
    line: Line,
    config: Json,
    vats: Vec<Vat>,
    chance: u64,
}

impl Crowd {
    fn below(&mut self, bound: usize) -> usize {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.chance >> 33).unwrap_or_default() % bound.max(1)
    }

    fn launch(&mut self) -> Result<()> {
        let launched = self.line.call("launchSubcluster", json!({"config": self.config}))?;
        let text = |pointer: &str| launched.pointer(pointer).and_then(Json::as_str).map(str::to_owned);
        let subcluster = text("/subclusterId").with_context(|| launched.to_string())?;
        let root = text("/rootKref").with_context(|| launched.to_string())?;
        let vats = self.line.call("listVats", json!([]))?;
        let mut vats = vats.as_array().into_iter().flatten();
        let own = vats.find(|vat| vat.get("subclusterId").and_then(Json::as_str) == Some(&subcluster));
        let vat = own.and_then(|vat| vat.get("vatId")?.as_str()).context("not listed")?.to_owned();
        self.vats.push(Vat { subcluster, vat, root });
        Ok(())
    }

    fn terminate(&mut self, at: usize) -> Result<()> {
        let gone = self.vats.swap_remove(at);
        self.line.call("terminateSubcluster", json!({"id": gone.subcluster})).map(drop)
    }

    /// Some trade with some others; every call is answered, with a number or with why not.
    fn trade(&mut self) -> Result<()> {
        for id in 0..CALLS {
            let count = self.vats.len();
            let from = self.below(count);
            let to = (from + 1 + self.below(count - 1)) % count;
            let (from, to) = (&self.vats[from].root, &self.vats[to].root);
            let params = json!([from, "trade", [{"@kref": to}]]);
            self.line.ask(id, "queueMessage", params)?;
        }
        for _ in 0..CALLS {
            let answer = self.line.hear().context("no response")?;
            ensure!(answer.get("result").is_some(), "{answer}");
        }
        Ok(())
    }

    fn step(&mut self, most: usize) -> Result<()> {
        let at = self.below(self.vats.len());
        match self.below(10) {
            _ if self.vats.len() < most / 2 => self.launch(),
            0..2 if self.vats.len() < most => self.launch(),
            0..3 => self.terminate(at),
            3 => self.line.call("restartVat", json!({"id": self.vats[at].vat})).map(drop),
            _ => self.trade(),
        }
    }
}

#[test]
fn a_crowd_of_vats_that_has_gone_leaves_nothing_behind() -> Result<()> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>()).transpose();
    let most = number("CAPSTAN_VATS")?.map_or(Ok(VATS), usize::try_from)?;
    let seconds = number("CAPSTAN_SECONDS")?;
    let shell = Shell::new();
    let daemon = Daemon::begin(&shell)?.ready()?;
    let source = shell.file("trader.js", TRADER);
    let config = json!({"bootstrap": "t", "vats": {"t": {"sourceSpec": source}}});
    let mut crowd = Crowd { line: Line::connect(&shell)?, config, vats: Vec::new(), chance: 200 };

    // One full house first: what it leaves in memory is the price of having had so many, not of time.
    let before = rows(&shell)?;
    while crowd.vats.len() < most {
        crowd.launch()?;
    }
    while !crowd.vats.is_empty() {
        crowd.terminate(0)?;
    }
    let (began, warm) = (Instant::now(), memory(&shell));
    let mut steps = 0;
    while seconds.map_or(steps < STEPS, |seconds| began.elapsed() < Duration::from_secs(seconds)) {
        crowd.step(most)?;
        steps += 1;
    }
    while !crowd.vats.is_empty() {
        crowd.terminate(0)?;
    }
    crowd.line.call("gc", json!([]))?;
    let after = rows(&shell)?;
    ensure!(before == after, "{before} became {after} in {steps} steps");
    ensure!(shell.run(&["dead-letters"]).done() == json!([]), "something was set aside");
    let end = memory(&shell);
    eprintln!(
        "{steps} steps in {} s, {warm} KiB after the first house, {end} in the end",
        began.elapsed().as_secs()
    );
    if seconds.is_some() {
        ensure!(end < warm + warm / 2, "memory grew from {warm} to {end} KiB");
    }
    daemon.kill()
}
