//! A vat of the storm: does what messages tell it, and finds fault with what reaches it.
//!
//! Every object and promise has a label that no other has, and every reference travels with its label. So a vat notices
//! when a message, an answer or a name belongs to something else than its sender meant. What it notices stands in its
//! store under `wrong.`, where the watch finds it once it is durable; messages executed stand under `did.`, promises
//! awaited under `wait.`, rejections heard under `lost.`.

use super::errand::{Body, Deed, Errand, Pick, Reply, Settlement};
use crate::passable::Passable;
use crate::scripted::{Call, Desk, Program, Script, reference};
use capstan_model::capdata::Resolution;
use capstan_model::refs::{Side, VRef};
use capstan_model::smallcaps::{Value, decode, encode};
use capstan_model::vat::VatSyscall;
use std::collections::{BTreeMap, BTreeSet};

/// Appended to the keys of what a vat awaits.
pub(super) const WAIT: &str = "wait.";
/// Of what it executed.
pub(super) const DID: &str = "did.";
/// Of what it found wrong.
pub(super) const WRONG: &str = "wrong.";
/// Of rejections.
pub(super) const LOST: &str = "lost.";
/// Of labels of its own objects.
pub(super) const OWN: &str = "own.";
/// Of labels of imports that it can use.
const HELD: &str = "held.";
/// Of those that it dropped and did not retire.
const DROPPED: &str = "dropped.";
/// What it rejects with.
pub(super) const NO: &str = "no";

/// The program of these vats.
pub(crate) const fn agent() -> Program {
    Program { name: "agent", make: || Box::<Agent>::default() }
}

/// What dies with a vat's run: the promises it decides, with their labels. The kernel rejects those then.
#[derive(Debug, Default)]
struct Agent {
    decides: BTreeMap<VRef, String>,
}

/// One delivery.
struct Work<'w, 'd> {
    agent: &'w mut Agent,
    desk: &'w mut Desk<'d>,
    /// What its sends and objects are named after.
    cause: String,
    made: u64,
}

impl Script for Agent {
    fn called(&mut self, desk: &mut Desk<'_>, call: Call) {
        let mut work = Work { agent: self, desk, cause: String::new(), made: 0 };
        if call.method == "be" {
            work.desk.set(&format!("{OWN}{}", VRef::ROOT), &call.text(0));
            return work.desk.fulfil(call.result, ());
        }
        if call.method == "ping" {
            return work.desk.fulfil(call.result, ());
        }
        match serde_json::from_str::<Errand>(&call.text(0)) {
            Ok(errand) => work.called(&call, errand),
            Err(error) => work.wrong(&format!("a message that nobody sent: {error}")),
        }
    }

    fn notified(&mut self, desk: &mut Desk<'_>, settled: Vec<Resolution<VRef>>) {
        let mut work = Work { agent: self, desk, cause: String::new(), made: 0 };
        work.told(&settled);
    }

    fn retired(&mut self, desk: &mut Desk<'_>, gone: &[VRef]) {
        let mut work = Work { agent: self, desk, cause: String::new(), made: 0 };
        for vref in gone {
            if work.desk.get(&format!("{DROPPED}{vref}")).is_none() {
                work.wrong(&format!("was told that {vref} is gone, which it has not dropped"));
            }
            work.desk.remove(&format!("{DROPPED}{vref}"));
        }
    }
}

impl Work<'_, '_> {
    fn wrong(&mut self, what: &str) {
        let at = self.desk.next_number("wrongs");
        self.desk.set(&format!("{WRONG}{at}"), what);
    }

    /// A label or message name that nothing else has: also after the vat went back in time.
    fn fresh(&mut self) -> String {
        self.made += 1;
        let again = self.desk.lineage;
        let mark = if again == 0 { String::new() } else { format!("@{again}") };
        format!("{}.{}{mark}", self.cause, self.made)
    }

    fn labels(&self, table: &str) -> BTreeMap<VRef, String> {
        let named = |(key, label): (String, std::sync::Arc<str>)| {
            Some((key.strip_prefix(table)?.parse().ok()?, label.to_string()))
        };
        self.desk.entries(table).into_iter().filter_map(named).collect()
    }

    fn label(&self, vref: VRef) -> Option<String> {
        let stored = [OWN, HELD, WAIT].into_iter().find_map(|table| self.desk.get(&format!("{table}{vref}")));
        stored.map(|label| label.to_string()).or_else(|| self.agent.decides.get(&vref).cloned())
    }

    fn called(&mut self, call: &Call, errand: Errand) {
        self.cause.clone_from(&errand.id);
        let own = self.desk.get(&format!("{OWN}{}", call.target));
        match (&errand.to, own) {
            (Some(to), Some(own)) if **to != *own => {
                self.wrong(&format!("{} was meant for {to} and reached {own}", errand.id));
            }
            (_, None) => self.wrong(&format!("{} reached {}, which is no object", errand.id, call.target)),
            (Some(_) | None, Some(_)) => {}
        }
        let did = format!("{DID}{}", errand.id);
        if self.desk.get(&did).is_some() {
            self.wrong(&format!("{} was executed twice", errand.id));
        }
        self.desk.set(&did, "");
        if errand.to.is_some() {
            self.in_order(&errand);
        }
        let references: Vec<VRef> = call.args.iter().skip(1).filter_map(reference).collect();
        self.learn_all(&references, &errand.labels, &BTreeSet::new());
        if let Some(result) = call.result {
            self.desk.remove(&format!("{WAIT}{result}"));
            self.agent.decides.insert(result, errand.id.clone());
        }
        self.perform(&errand.body);
        if let (Some(result), Reply::Now(settlement)) = (call.result, &errand.body.answer)
            && self.agent.decides.contains_key(&result)
        {
            self.settle(result, settlement);
        }
    }

    /// Messages of one sender to one object come in the order they were sent (02 §4.4).
    fn in_order(&mut self, errand: &Errand) {
        let key = format!("last.{} {}", errand.from, errand.way);
        let last = self.desk.number(&key);
        if last >= errand.number {
            self.wrong(&format!("{} overtook number {last} of {}", errand.id, errand.from));
        }
        self.desk.set(&key, &errand.number.to_string());
    }

    fn told(&mut self, settled: &[Resolution<VRef>]) {
        let group: BTreeSet<VRef> = settled.iter().map(|resolution| resolution.promise).collect();
        let waited: Vec<Option<String>> = settled.iter().map(|r| self.label(r.promise)).collect();
        for promise in &group {
            self.desk.remove(&format!("{WAIT}{promise}"));
        }
        for (at, (resolution, label)) in settled.iter().zip(waited).enumerate() {
            // Others of a group may be news.
            if at == 0 && label.is_none() {
                self.wrong(&format!("was told of {}, which it does not await", resolution.promise));
            }
            self.heard(resolution, label.as_deref(), &group);
        }
    }

    fn heard(&mut self, resolution: &Resolution<VRef>, label: Option<&str>, group: &BTreeSet<VRef>) {
        let value = decode(&resolution.value).unwrap_or(Value::Undefined);
        if resolution.rejected {
            let why = if let Value::Error { message, .. } = value { message } else { format!("{value:?}") };
            if let Some(label) = label.filter(|_| why != NO) {
                self.desk.set(&format!("{LOST}{label}"), &why);
            }
            return;
        }
        if let Value::Object { slot, iface: Some(label) } = &value {
            let label = label.trim_start_matches("Alleged: ").to_owned();
            return self.learn_all(&[*slot], &[label], group);
        }
        let Some((text, references)) = answer_parts(&value) else {
            return self.wrong(&format!("{} was settled with {value:?}", resolution.promise));
        };
        let (about, labels) = text.split_once('|').unwrap_or((&text, ""));
        if let Some(label) = label.filter(|label| *label != about) {
            self.wrong(&format!("{label} was settled by the answer to {about}"));
        }
        let labels: Vec<String> = labels.split_whitespace().map(str::to_owned).collect();
        self.learn_all(&references, &labels, group);
    }

    fn learn_all(&mut self, references: &[VRef], labels: &[String], settled: &BTreeSet<VRef>) {
        if references.len() != labels.len() {
            return self.wrong(&format!("{references:?} for {labels:?} in {}", self.cause));
        }
        for (&vref, label) in references.iter().zip(labels).filter(|(vref, _)| !settled.contains(vref)) {
            self.learn(vref, label);
        }
    }

    fn learn(&mut self, vref: VRef, label: &str) {
        match self.label(vref) {
            Some(known) if known != label => {
                self.wrong(&format!("{vref} is {known} and was passed as {label} in {}", self.cause));
            }
            Some(_) => {}
            None if vref.is_object() && vref.side() == Side::Export => {
                self.wrong(&format!("{vref}, which it never made, was passed as {label}"));
            }
            None if vref.is_object() => {
                let dropped = format!("{DROPPED}{vref}");
                if self.desk.get(&dropped).is_some_and(|known| *known != *label) {
                    self.wrong(&format!("{vref}, once dropped, was passed as {label} in {}", self.cause));
                }
                self.desk.remove(&dropped);
                self.desk.set(&format!("{HELD}{vref}"), label);
            }
            None => {
                self.desk.set(&format!("{WAIT}{vref}"), label);
                self.desk.subscribe(vref);
            }
        }
    }

    fn nameable(&self) -> Vec<(VRef, String)> {
        let stored = [HELD, OWN, WAIT].into_iter().flat_map(|table| self.labels(table));
        stored.chain(self.agent.decides.clone()).collect()
    }

    fn pick(&self, at: Pick) -> Option<(VRef, String)> {
        chosen(self.nameable(), at)
    }

    fn perform(&mut self, body: &Body) {
        for deed in &body.deeds {
            self.do_one(deed);
        }
    }

    fn do_one(&mut self, deed: &Deed) {
        match deed {
            Deed::Send { target, slots, wanted, body } => self.send(*target, slots, *wanted, body),
            Deed::Promise => {
                let (promise, label) = (self.desk.promise(), self.fresh());
                self.agent.decides.insert(promise, label);
            }
            Deed::Object => {
                let (object, label) = (self.desk.object(), self.fresh());
                self.desk.set(&format!("{OWN}{object}"), &label);
            }
            Deed::Settle(at, settlement) => {
                if let Some(promise) = chosen(self.agent.decides.keys().copied().collect(), *at) {
                    self.settle(promise, settlement);
                }
            }
            Deed::Drop(at, retired) => {
                if let Some((import, label)) = chosen(self.labels(HELD).into_iter().collect(), *at) {
                    self.drop_import(import, &label, *retired);
                }
            }
            Deed::SettleAll => {
                for promise in self.agent.decides.keys().copied().collect::<Vec<_>>() {
                    self.settle(promise, &Settlement::default());
                }
            }
            Deed::ForgetAll => {
                for import in self.labels(DROPPED).into_keys() {
                    self.desk.remove(&format!("{DROPPED}{import}"));
                    self.desk.syscall(VatSyscall::RetireImports(vec![import]));
                }
                for (import, label) in self.labels(HELD) {
                    self.drop_import(import, &label, true);
                }
            }
        }
    }

    fn drop_import(&mut self, import: VRef, label: &str, retired: bool) {
        self.desk.remove(&format!("{HELD}{import}"));
        self.desk.syscall(VatSyscall::DropImports(vec![import]));
        if retired {
            self.desk.syscall(VatSyscall::RetireImports(vec![import]));
        } else {
            self.desk.set(&format!("{DROPPED}{import}"), label);
        }
    }

    fn send(&mut self, target: Pick, slots: &[Pick], wanted: bool, body: &Body) {
        let Some((target, to)) = self.pick(target) else { return };
        let slots: Vec<_> = slots.iter().filter_map(|at| self.pick(*at)).collect();
        let id = self.fresh();
        let again = self.desk.lineage;
        let uid = self.desk.get(&format!("{OWN}{}", VRef::ROOT)).unwrap_or_else(|| "nobody".into());
        let errand = Errand {
            id: id.clone(),
            from: format!("{uid}@{again}"),
            number: self.desk.next_number(&format!("sent {again}")),
            way: target.to_string(),
            to: target.is_object().then_some(to),
            labels: slots.iter().map(|(_, label)| label.clone()).collect(),
            body: body.clone(),
        };
        let args = errand.args(slots.iter().map(|(vref, _)| vref.value()));
        if wanted {
            let result = self.desk.send(target, "do", args);
            self.desk.set(&format!("{WAIT}{result}"), &id);
        } else {
            self.desk.send_only(target, "do", args);
        }
    }

    fn settle(&mut self, promise: VRef, settlement: &Settlement) {
        let Some(label) = self.agent.decides.remove(&promise) else { return };
        if settlement.rejected {
            return self.desk.reject(Some(promise), NO);
        }
        let slots: Vec<_> = settlement.slots.iter().filter_map(|at| self.pick(*at)).collect();
        let object = slots.first().filter(|(vref, _)| settlement.bare && vref.is_object());
        let value = match object {
            // An object by itself carries its label as the name of its interface.
            Some((object, label)) => Value::Object { slot: *object, iface: Some(label.clone()) },
            None => {
                let labels: Vec<_> = slots.iter().map(|(_, label)| label.as_str()).collect();
                let text = format!("{label}|{}", labels.join(" "));
                let parts = std::iter::once(text.as_str().value());
                Value::Array(parts.chain(slots.iter().map(|(vref, _)| vref.value())).collect())
            }
        };
        let value = encode(&value);
        self.desk.syscall(VatSyscall::Resolve(vec![Resolution { promise, rejected: false, value }]));
    }
}

/// What an answer of a vat is about, and the references in it; nothing of an object itself.
pub(super) fn answer_parts<R: Copy>(value: &Value<R>) -> Option<(String, Vec<R>)> {
    let Value::Array(items) = value else { return None };
    let (Value::String(text), rest) = items.split_first()? else { return None };
    let slot = |item: &Value<R>| match item {
        Value::Object { slot, .. } | Value::Promise(slot) => Some(*slot),
        Value::Undefined | Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInt(_) => None,
        Value::String(_) | Value::Symbol(_) | Value::Array(_) | Value::Record(_) => None,
        Value::Error { .. } | Value::Tagged { .. } => None,
    };
    Some((text.clone(), rest.iter().filter_map(slot).collect()))
}

impl Errand {
    /// The arguments of its message.
    pub(super) fn args<R>(&self, references: impl Iterator<Item = Value<R>>) -> Vec<Value<R>> {
        // Plain data always has a JSON form.
        let text = serde_json::to_string(self).unwrap_or_default();
        std::iter::once(Value::String(text)).chain(references).collect()
    }
}

/// What a choice comes to.
pub(super) fn chosen<T: Clone>(among: Vec<T>, at: Pick) -> Option<T> {
    let at = usize::try_from(at).unwrap_or(0).checked_rem(among.len())?;
    among.get(at).cloned()
}
