//! A daemon that is killed again and again in the midst of its work. `scripts/kill-soak` does it a thousand times.

use crate::shell::Shell;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often the daemon is killed, unless `CAPSTAN_KILLS` says otherwise.
const KILLS: u64 = 10;
/// One kill in so many comes while the daemon starts.
const EARLY_EVERY: u64 = 8;
/// A daemon at work is killed within so many milliseconds, a starting one within so many.
const LATEST_MS: u64 = 150;
const LATEST_EARLY_MS: u64 = 60;
/// Connections, and requests in flight on each.
const LINES: usize = 3;
const WINDOW: usize = 16;

/// Notes each number durably, passes it on to the next vat, and answers with a new object.
const NOTEBOOK: &str = "import { E, Far } from '@endo/far';
import { makeDefaultExo } from '@metamask/kernel-utils/exo';
export function buildRootObject(_vatPowers, _parameters, baggage) {
  const key = n => `n${n}`;
  return makeDefaultExo('notebook', {
    bootstrap(vats) { baggage.init('next', vats.back); },
    async note(n) {
      if (baggage.has(key(n))) baggage.set(key(n), baggage.get(key(n)) + 1);
      else baggage.init(key(n), 1);
      if (baggage.has('next')) await E(baggage.get('next')).note(n);
      return Far('receipt', {});
    },
    // What was noted in a range, and how often; the range is forgotten.
    report(from, to) {
      const seen = [];
      for (let n = from; n < to; n += 1) {
        if (baggage.has(key(n))) {
          seen.push([n, baggage.get(key(n))]);
          baggage.delete(key(n));
        }
      }
      return seen;
    },
  });
}";

/// A daemon that is our child, so that it can be killed at any time and nothing else can be hit.
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn begin(shell: &Shell) -> Result<Daemon> {
        let mut command = shell.command(&["--json", "daemon", "start", "--foreground", "--no-network"]);
        Ok(Daemon(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?))
    }

    /// Waits until it accepts requests.
    pub(crate) fn ready(mut self) -> Result<Daemon> {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().context("its output")?).read_line(&mut line)?;
        ensure!(line.contains("peerId"), "the daemon did not start: {line:?}");
        Ok(self)
    }

    pub(crate) fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Line(BufReader<UnixStream>);

impl Line {
    pub(crate) fn connect(shell: &Shell) -> Result<Line> {
        let stream = UnixStream::connect(shell.home().join("daemon.sock"))?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Line(BufReader::new(stream)))
    }

    pub(crate) fn ask(&mut self, id: u64, method: &str, params: Json) -> Result<()> {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        Ok(self.0.get_mut().write_all(format!("{request}\n").as_bytes())?)
    }

    /// The next response; `None` when the daemon has gone.
    pub(crate) fn hear(&mut self) -> Option<Json> {
        let mut text = String::new();
        self.0.read_line(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub(crate) fn call(&mut self, method: &str, params: Json) -> Result<Json> {
        self.ask(0, method, params)?;
        let response = self.hear().context("no response")?;
        response.get("result").cloned().with_context(|| format!("{method}: {response}"))
    }
}

/// Each answered number, with the object that came in answer.
type Answered = Vec<(u64, String)>;

/// Keeps asking for numbers to be noted until the daemon is gone; returns what was answered.
fn load(shell: &Shell, root: &str, next: &Arc<AtomicU64>) -> Result<JoinHandle<Result<Answered>>> {
    let (mut line, root, next) = (Line::connect(shell)?, root.to_owned(), next.clone());
    Ok(thread::spawn(move || {
        let ask = |line: &mut Line| {
            let number = next.fetch_add(1, Ordering::Relaxed);
            line.ask(number, "queueMessage", json!([root, "note", [number]]))
        };
        let mut answered = Vec::new();
        // What cannot be asked any more was not accepted.
        let mut open = (0..WINDOW).all(|_| ask(&mut line).is_ok());
        while let Some(response) = line.hear() {
            let Some(object) = response.pointer("/result/slots/0").and_then(Json::as_str) else {
                bail!("{response}");
            };
            answered.push((response.get("id").and_then(Json::as_u64).context("no id")?, object.to_owned()));
            open = open && ask(&mut line).is_ok();
        }
        Ok(answered)
    }))
}

/// What a vat has noted in a range, each number with how often.
fn report(line: &mut Line, root: &str, from: u64, to: u64) -> Result<BTreeMap<u64, u64>> {
    let settled = line.call("queueMessage", json!([root, "report", [from, to]]))?;
    let body = settled.get("body").and_then(Json::as_str).unwrap_or_default();
    let pairs: Vec<(u64, u64)> = serde_json::from_str(body.trim_start_matches('#'))?;
    Ok(pairs.into_iter().collect())
}

/// All number dispensers.
fn counters(line: &mut Line) -> Result<BTreeMap<String, u64>> {
    let rows = line.call("query", json!({"sql": "select name, next from counter"}))?;
    let rows = rows.as_array().context("no rows")?.iter();
    let pair = |row: &Json| Some((row.get("name")?.as_str()?.to_owned(), row.get("next")?.as_u64()?));
    rows.map(|row| pair(row).context("a counter")).collect()
}

/// Launches two notebooks, the first passing on to the second, and returns their roots.
fn launch(shell: &Shell) -> Result<(String, String)> {
    shell.file("notebook.js", NOTEBOOK);
    let vat = json!({"sourceSpec": "notebook.js"});
    let config = json!({"bootstrap": "front", "vats": {"front": vat, "back": vat}});
    let launched = shell.run(&["launch", &shell.file("cluster.json", &config.to_string())]).done();
    let root = |name: &str| {
        let kref = launched.pointer(&format!("/vats/{name}/rootKref")).and_then(Json::as_str);
        kref.map(str::to_owned).with_context(|| format!("no {name}"))
    };
    Ok((root("front")?, root("back")?))
}

#[test]
fn k39_what_was_accepted_survives_a_kill_at_any_instant_exactly_once() -> Result<()> {
    let kills = std::env::var("CAPSTAN_KILLS").map_or(Ok(KILLS), |text| text.parse())?;
    let shell = Shell::new();
    let daemon = Daemon::begin(&shell)?.ready()?;
    let (front, back) = launch(&shell)?;
    daemon.kill()?;

    let next = Arc::new(AtomicU64::new(1));
    let (mut chance, mut reported, mut answers, mut noted, mut early) = (39_u64, 1, Vec::new(), 0, 0);
    let (mut objects, mut dispensed) = (BTreeSet::new(), BTreeMap::new());
    for kill in 0..=kills {
        let found = shell.run(&["fsck"]).done();
        ensure!(found.get("ok") == Some(&json!(true)), "after kill {kill}: {found}");
        // The order of instants varies with the machine anyway; this only spreads them.
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let within = |latest: u64| Duration::from_millis((chance >> 33) % latest);
        if kill % EARLY_EVERY == EARLY_EVERY - 1 {
            let daemon = Daemon::begin(&shell)?;
            thread::sleep(within(LATEST_EARLY_MS));
            daemon.kill()?;
            early += 1;
            continue;
        }
        let daemon = Daemon::begin(&shell)?.ready()?;
        let mut line = Line::connect(&shell)?;
        // Everything asked of the first vat comes before this question, so what it has passed on to the second
        // comes before the next.
        let end = next.load(Ordering::Relaxed);
        let (first, second) =
            (report(&mut line, &front, reported, end)?, report(&mut line, &back, reported, end)?);
        ensure!(first == second, "after kill {kill}: {first:?} was passed on as {second:?}");
        ensure!(first.values().all(|times| *times == 1), "after kill {kill}: {first:?}");
        for (number, object) in answers.drain(..) {
            ensure!(first.contains_key(&number), "after kill {kill}: {number} was answered and is lost");
            ensure!(objects.insert(object), "after kill {kill}: an object's name was given twice");
        }
        (reported, noted) = (end, noted + first.len());
        line.call("collectGarbage", json!([]))?;
        let now = counters(&mut line)?;
        for (name, before) in &dispensed {
            ensure!(now.get(name).is_some_and(|next| next >= before), "after kill {kill}: {name} went back");
        }
        dispensed = now;
        if kill == kills {
            break;
        }
        let lines = (0..LINES).map(|_| load(&shell, &front, &next)).collect::<Result<Vec<_>>>()?;
        thread::sleep(within(LATEST_MS));
        daemon.kill()?;
        for line in lines {
            answers.extend(line.join().map_err(|_| anyhow::anyhow!("a line panicked"))??);
        }
    }
    ensure!(!objects.is_empty() && noted >= objects.len(), "nothing was done");
    let (asked, answered) = (next.load(Ordering::Relaxed) - 1, objects.len());
    eprintln!("{kills} kills ({early} during a start): {asked} asked, {answered} answered, {noted} noted");
    Ok(())
}

#[test]
fn a_backup_under_load_holds_everything_answered_before_it_and_nothing_by_half() -> Result<()> {
    let (shell, other) = (Shell::new(), Shell::new());
    let daemon = Daemon::begin(&shell)?.ready()?;
    let (front, back) = launch(&shell)?;
    let mut line = Line::connect(&shell)?;
    let next = Arc::new(AtomicU64::new(1));
    let lines = (0..LINES).map(|_| load(&shell, &front, &next)).collect::<Result<Vec<_>>>()?;
    // A number of its own, whose answer comes while the others are asked and before the copy is made.
    line.call("queueMessage", json!([front, "note", [0]]))?;
    let file = shell.file("unused", "") + ".backup";
    let copied = shell.run(&["backup", &file]).done();
    let end = next.load(Ordering::Relaxed);
    daemon.kill()?;
    lines
        .into_iter()
        .try_for_each(|line| line.join().map_or_else(|_| bail!("a line panicked"), |_| Ok(())))?;

    let bytes = std::fs::read(&file)?;
    let sha256 = hex::encode(Sha256::digest(&bytes));
    ensure!(copied == json!({"bytes": bytes.len(), "sha256": sha256}), "{copied}");
    ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "open to others");
    ensure!(other.run(&["restore", &file]).done() == copied, "restored from something else");
    ensure!(other.run(&["fsck"]).done().get("ok") == Some(&json!(true)), "not a whole state");
    let restored = Daemon::begin(&other)?.ready()?;
    let mut line = Line::connect(&other)?;
    let (first, second) = (report(&mut line, &front, 0, end)?, report(&mut line, &back, 0, end)?);
    ensure!(first == second && first.values().all(|times| *times == 1), "{first:?} {second:?}");
    ensure!(first.contains_key(&0), "what was answered before the copy is not in it");
    restored.kill()
}
