//! Cutting a failing plan down.

use super::errand::{Body, Deed, Reply, Settlement};
use super::plan::{Act, Plan};
use super::{Failure, run};

/// Runs that cutting down may take.
const RUNS_MAX: usize = 3000;

/// Cuts a failing plan down while it still fails.
pub fn shrink(mut plan: Plan, mut failure: Failure) -> (Plan, Failure) {
    let mut runs = 0;
    let mut fails = |candidate: &Plan| {
        runs += 1;
        if runs > RUNS_MAX { None } else { run(candidate).err() }
    };
    loop {
        let before = plan.clone();
        let mut chunk = plan.acts.len().div_ceil(2);
        while chunk > 0 {
            let mut at = 0;
            while at < plan.acts.len() {
                let end = at.saturating_add(chunk).min(plan.acts.len());
                let acts = [&plan.acts[..at], &plan.acts[end..]].concat();
                let candidate = Plan { acts, ..plan.clone() };
                match fails(&candidate) {
                    Some(found) => (plan, failure) = (candidate, found),
                    None => at = end,
                }
            }
            chunk /= 2;
        }
        for at in 0..plan.acts.len() {
            while let Some((smaller, found)) = plan.acts[at].smaller().into_iter().find_map(|act| {
                let mut candidate = plan.clone();
                candidate.acts[at] = act;
                fails(&candidate).map(|found| (candidate, found))
            }) {
                (plan, failure) = (smaller, found);
            }
        }
        if plan == before {
            return (plan, failure);
        }
    }
}

impl Act {
    /// The same with a little less in it.
    fn smaller(&self) -> Vec<Act> {
        let Act::Call(who, vat, slots, body) = self else { return Vec::new() };
        let bodies = body.smaller().into_iter().map(|body| Act::Call(*who, *vat, slots.clone(), body));
        let fewer = without_one(slots).into_iter().map(|slots| Act::Call(*who, *vat, slots, body.clone()));
        bodies.chain(fewer).collect()
    }
}

impl Body {
    fn smaller(&self) -> Vec<Body> {
        let mut found: Vec<Body> = without_one(&self.deeds)
            .into_iter()
            .map(|deeds| Body { deeds, answer: self.answer.clone() })
            .collect();
        for (at, deed) in self.deeds.iter().enumerate() {
            for smaller in deed.smaller() {
                let mut body = self.clone();
                body.deeds[at] = smaller;
                found.push(body);
            }
        }
        if let Reply::Now(settlement) = &self.answer {
            for settlement in settlement.smaller() {
                found.push(Body { deeds: self.deeds.clone(), answer: Reply::Now(settlement) });
            }
        }
        found
    }
}

impl Settlement {
    fn smaller(&self) -> Vec<Settlement> {
        without_one(&self.slots).into_iter().map(|slots| Settlement { slots, ..self.clone() }).collect()
    }
}

impl Deed {
    fn smaller(&self) -> Vec<Deed> {
        match self {
            Deed::Send { target, slots, wanted, body } => {
                let (target, wanted) = (*target, *wanted);
                let bodies = body.smaller().into_iter();
                let bodies = bodies.map(|body| Deed::Send { target, slots: slots.clone(), wanted, body });
                let fewer = without_one(slots).into_iter();
                let fewer = fewer.map(|slots| Deed::Send { target, slots, wanted, body: body.clone() });
                bodies.chain(fewer).collect()
            }
            Deed::Settle(at, settlement) => {
                settlement.smaller().into_iter().map(|settlement| Deed::Settle(*at, settlement)).collect()
            }
            Deed::Promise | Deed::Object | Deed::Drop(..) | Deed::SettleAll | Deed::ForgetAll => Vec::new(),
        }
    }
}

fn without_one<T: Clone>(all: &[T]) -> Vec<Vec<T>> {
    (0..all.len()).map(|at| [&all[..at], &all[at + 1..]].concat()).collect()
}
