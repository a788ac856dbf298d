//! A random workload on one kernel, without a network: everything that hosts and vats can do to it, in every order that
//! concurrent cranks, late disks and crashes allow, and what must hold all the while and at the end.
//!
//! A seed decides a list of acts ([`act::acts`]) before anything runs; [`run`] performs a list, [`shrink`] cuts a failing
//! one down. Choices are taken modulo what there is to choose from, so a list with parts left out is still one.
//!
//! What must hold all the while: the recount after every transaction finds nothing; nothing is set aside; a vat is told
//! only names that it has or that are new, each settlement once, each end of an object after it was dropped; a crank
//! that was undone has sent nothing; no message is executed twice, also across a crash; whoever is told that a call was
//! fulfilled, it was executed. At rest: every waiter was told, nobody's messages overtook each other (02 §4.4), and when
//! all let go of all, nothing is left.

pub mod act;
mod actor;
mod conclude;
mod driver;
mod ledger;

use act::{Act, Body, Deed, Weather};
use driver::Soak;

/// Acts of one workload.
pub const ACTS: usize = 120;
/// Lines of a trace that a report shows.
const LINES: usize = 60;
/// Runs that cutting down may take.
const SHRINK_RUNS_MAX: usize = 1500;

/// A workload that showed a fault.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was wrong.
    pub what: String,
    /// The last things that happened.
    pub trace: String,
}

/// Performs the acts and concludes; returns a hash of all that happened.
pub fn run(weather: Weather, acts: &[Act]) -> Result<u64, Failure> {
    let mut soak = Soak::new().map_err(|what| Failure { what, trace: String::new() })?;
    let calm = driver::is_calm(weather, acts);
    let outcome = acts.iter().try_for_each(|act| soak.act(act)).and_then(|()| soak.conclude(calm));
    match outcome {
        Ok(()) => Ok(soak.trace.hash()),
        Err(what) => Err(Failure { what, trace: soak.trace.tail(LINES) }),
    }
}

/// Runs the workload of a seed; a failure comes with the shortest list of acts found that still fails.
pub fn run_seed(seed: u64) -> Result<u64, (Vec<Act>, Failure)> {
    let (weather, acts) = act::acts(seed, ACTS);
    run(weather, &acts).map_err(|failure| shrink(weather, acts, failure))
}

/// Cuts a failing list down while it still fails.
pub fn shrink(weather: Weather, mut acts: Vec<Act>, mut failure: Failure) -> (Vec<Act>, Failure) {
    let mut runs = 0;
    let mut fails = |candidate: &[Act]| {
        runs += 1;
        if runs > SHRINK_RUNS_MAX { None } else { run(weather, candidate).err() }
    };
    loop {
        let before = acts.clone();
        let mut chunk = acts.len().div_ceil(2);
        while chunk > 0 {
            let mut at = 0;
            while at < acts.len() {
                let end = at.saturating_add(chunk).min(acts.len());
                let candidate: Vec<Act> = [&acts[..at], &acts[end..]].concat();
                match fails(&candidate) {
                    Some(found) => (acts, failure) = (candidate, found),
                    None => at = end,
                }
            }
            chunk /= 2;
        }
        for at in 0..acts.len() {
            while let Some((smaller, found)) = acts[at].smaller().into_iter().find_map(|smaller| {
                let mut candidate = acts.clone();
                candidate[at] = smaller.clone();
                fails(&candidate).map(|found| (smaller, found))
            }) {
                acts[at] = smaller;
                failure = found;
            }
        }
        if acts == before {
            return (acts, failure);
        }
    }
}

impl Act {
    /// The same with a little less in it.
    fn smaller(&self) -> Vec<Act> {
        let mut found = Vec::new();
        match self {
            Act::Launch { vats, unsound, bootstrap } => {
                for bootstrap in bootstrap.smaller() {
                    found.push(Act::Launch { vats: *vats, unsound: *unsound, bootstrap });
                }
                if *vats > 1 {
                    found.push(Act::Launch {
                        vats: vats - 1,
                        unsound: *unsound,
                        bootstrap: bootstrap.clone(),
                    });
                }
            }
            Act::Call { target, slots, body } => {
                for body in body.smaller() {
                    found.push(Act::Call { target: *target, slots: slots.clone(), body });
                }
                for slots in without_one(slots) {
                    found.push(Act::Call { target: *target, slots, body: body.clone() });
                }
            }
            Act::Start(at, act::Beginning::Does(deeds)) => {
                found.extend(
                    smaller_deeds(deeds)
                        .into_iter()
                        .map(|deeds| Act::Start(*at, act::Beginning::Does(deeds))),
                );
            }
            Act::Answer { vat, count, fault } if *count > 1 => {
                found.push(Act::Answer { vat: *vat, count: count - 1, fault: *fault });
            }
            Act::Answer { .. }
            | Act::Start(_, act::Beginning::Fails)
            | Act::Late(_)
            | Act::Die(_)
            | Act::Restart(_)
            | Act::Terminate(_)
            | Act::TerminateSubcluster(_)
            | Act::Revoke(_)
            | Act::Collect
            | Act::Abandon(_)
            | Act::Issue(_)
            | Act::Withdraw(_)
            | Act::Time
            | Act::Sync(_)
            | Act::Crash => {}
        }
        found
    }
}

impl Body {
    fn smaller(&self) -> Vec<Body> {
        let answer = || self.answer.clone();
        smaller_deeds(&self.deeds).into_iter().map(|deeds| Body { deeds, answer: answer() }).collect()
    }
}

fn smaller_deeds(deeds: &[Deed]) -> Vec<Vec<Deed>> {
    let mut found = without_one(deeds);
    for (at, deed) in deeds.iter().enumerate() {
        let Deed::Send { target, slots, wanted, body } = deed else { continue };
        let bodies = body.smaller().into_iter().map(|body| (slots.clone(), body));
        let fewer = without_one(slots).into_iter().map(|slots| (slots, body.clone()));
        for (slots, body) in bodies.chain(fewer) {
            let mut candidate = deeds.to_vec();
            candidate[at] = Deed::Send { target: *target, slots, wanted: *wanted, body };
            found.push(candidate);
        }
    }
    found
}

fn without_one<T: Clone>(all: &[T]) -> Vec<Vec<T>> {
    (0..all.len()).map(|at| [&all[..at], &all[at + 1..]].concat()).collect()
}
