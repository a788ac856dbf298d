//! The handshake, explored: everything that two kernels can do within small bounds, and what must hold of each state.
//!
//! **What is real.** Every step of a kernel is taken by the code that ships: `link_event` (facts, `decide`, the stale
//! rules, the commits, the frames), `transmit`, `outbox::append`, `peer_forget`, on the rows of a `Db` and on
//! `Channels`. Frames and handshakes are what that code wrote. A kernel is deterministic, so a step is run once for
//! each moment and event, and its outcome serves every state of the pair in which that moment occurs.
//!
//! **What is not.** The link machine: it is replaced by the most liberal one that obeys orders. Handshakes of several
//! channels interleave freely, a dead process's handshake may still arrive, a closed channel may still be read. (The
//! real one serialises handshakes, so it can do less.) Timers stand still, acknowledgements leave at once, a commit is
//! on the disk when its effects leave (law L3), and channels deliver in order. A message is a frame that gives up an
//! object which was never given: consumed, numbered, and without a consequence besides. Vats, references and window are
//! other tests' matter.
//!
//! **What must hold** of every state and step: no session ends unless a life has ended (a wipe, a restored backup, a
//! forgotten peer, a rebirth of either); only what was restored finds itself regressed; a message is processed at most
//! once, in the order of its session and never in the history of another; it leaves the outbox as acknowledged only if it
//! was processed; at most one channel is in use, and it belongs to the current session; two ends of a channel in use name
//! one session; when both are at rest, each has processed exactly what the other numbered. A sample of states is
//! continued without faults, in a random order, until both are at rest.
//!
//! Searches beyond what a test may take are run by hand (`docs/restart-detection.md`):
//!
//! ```text
//! CAPSTAN_EXPLORE='start=acquainted messages=1 faults=2 dials=2' \
//!     cargo test --release -p capstan-kernel --lib explore::by_hand -- --nocapture
//! ```

mod pair;
mod search;
mod side;

use pair::{Bounds, Pair};
use search::{Found, search, walk};

/// Two dials, one message each, nothing goes wrong.
const CALM: Bounds = Bounds {
    messages: 1,
    faults: 0,
    losses: 0,
    dials: 2,
    keep: true,
    wipe: true,
    restore: true,
    forget: true,
    mixed: false,
};
/// The same, for a test that names its kinds of faults.
const KINDLESS: Bounds = Bounds { keep: false, wipe: false, restore: false, forget: false, ..CALM };
/// For walks: more than a search could exhaust.
const ROUGH: Bounds = Bounds { messages: 2, faults: 3, losses: 2, dials: 8, ..CALM };

/// Explores everything within the bounds, from two strangers or from an agreed session.
fn explore(acquainted: bool, bounds: Bounds, limit: usize, sample: u64) -> Found {
    let mut pair = Pair::new(bounds);
    let start = if acquainted { pair.acquainted() } else { pair.strangers() };
    search(&mut pair, start, limit, sample)
}

fn all_is_well(acquainted: bool, bounds: Bounds) {
    let found = explore(acquainted, bounds, usize::MAX, 32);
    if let Some(broken) = &found.broken {
        panic!("after {} states:\n{broken}", found.states);
    }
    assert!(found.complete && found.continuations > 0 && found.moves > found.states, "{found:?}");
}

fn wander(acquainted: bool, bounds: Bounds, walks: u64, seed: u64) {
    let mut pair = Pair::new(bounds);
    let start = if acquainted { pair.acquainted() } else { pair.strangers() };
    if let Some(broken) = walk(&mut pair, start, walks, seed).broken {
        panic!("{broken}");
    }
}

#[test]
fn strangers_with_two_dials_and_a_loss() {
    all_is_well(false, Bounds { losses: 1, ..CALM });
}

#[test]
fn a_session_with_two_dials_and_a_loss() {
    all_is_well(true, Bounds { losses: 1, ..CALM });
}

#[test]
fn strangers_and_a_wipe() {
    all_is_well(false, Bounds { faults: 1, wipe: true, ..KINDLESS });
}

#[test]
fn strangers_and_a_forgotten_peer() {
    all_is_well(false, Bounds { faults: 1, forget: true, ..KINDLESS });
}

#[test]
fn a_session_and_a_forgotten_peer() {
    all_is_well(true, Bounds { faults: 1, forget: true, ..KINDLESS });
}

#[test]
fn a_session_and_a_crash() {
    all_is_well(true, Bounds { faults: 1, keep: true, ..KINDLESS });
}

#[test]
fn strangers_and_a_restored_backup() {
    all_is_well(false, Bounds { faults: 2, dials: 1, restore: true, forget: true, ..KINDLESS });
}

#[test]
fn mixed_generations_with_a_crash() {
    all_is_well(false, Bounds { mixed: true, faults: 1, keep: true, ..KINDLESS });
}

#[test]
fn random_walks_of_strangers() {
    wander(false, ROUGH, 500, 1);
}

#[test]
fn random_walks_from_a_session() {
    wander(true, ROUGH, 500, 2);
}

#[test]
fn random_walks_of_mixed_generations() {
    wander(
        false,
        Bounds { mixed: true, keep: true, losses: 2, dials: 8, messages: 2, faults: 3, ..KINDLESS },
        600,
        3,
    );
}

/// A search of any size, where one is asked for.
#[test]
#[allow(clippy::disallowed_methods, clippy::print_stdout, reason = "run by hand, and for its figures")]
fn by_hand() {
    let asked = std::env::var("CAPSTAN_EXPLORE").unwrap_or_default();
    if asked.is_empty() {
        return;
    }
    let mut bounds = CALM;
    let (mut acquainted, mut limit, mut sample, mut walks, mut seed) = (false, usize::MAX, 128, 0, 1);
    for word in asked.split_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "start" => acquainted = value == "acquainted",
            "messages" => bounds.messages = value.parse().unwrap(),
            "faults" => bounds.faults = value.parse().unwrap(),
            "losses" => bounds.losses = value.parse().unwrap(),
            "dials" => bounds.dials = value.parse().unwrap(),
            "kinds" => {
                let has = |kind: &str| value.split(',').any(|word| word == kind);
                (bounds.keep, bounds.wipe) = (has("keep"), has("wipe"));
                (bounds.restore, bounds.forget) = (has("restore"), has("forget"));
            }
            "mixed" => bounds.mixed = true,
            "limit" => limit = value.parse().unwrap(),
            "sample" => sample = value.parse().unwrap(),
            "walks" => walks = value.parse().unwrap(),
            "seed" => seed = value.parse().unwrap(),
            other => panic!("no such bound: {other}"),
        }
    }
    let found = if walks > 0 {
        let mut pair = Pair::new(bounds);
        let start = if acquainted { pair.acquainted() } else { pair.strangers() };
        walk(&mut pair, start, walks, seed)
    } else {
        explore(acquainted, bounds, limit, sample)
    };
    println!("{asked}: {found:?}");
    if let Some(broken) = found.broken {
        panic!("{broken}");
    }
}
