//! A vat as the workload sees it: it keeps its own account of what it may name, and finds fault with deliveries that
//! do not agree with it.

use super::act::{Body, Content, Deed, Pick, Reply, Wanted};
use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::refs::{Side, VObject, VRef};
use capstan_model::vat::{DeliveryId, StoreChanges, VatDelivery, VatIncarnation, VatStart, VatSyscall};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// One message in the making: what the ledger is told of it once its crank is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) target: VRef,
    pub(super) body: Body,
}

/// What came of one delivery.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) syscalls: Vec<VatSyscall>,
    pub(super) store: StoreChanges,
    pub(super) sent: Vec<Sent>,
    /// The message that was executed.
    pub(super) executed: Option<u64>,
    /// What it settled.
    pub(super) settled: Vec<VRef>,
    /// Results that were fulfilled, by the number of their messages.
    pub(super) fulfilled: Vec<u64>,
    pub(super) illegal: bool,
    /// The first wish to end: as a failure.
    pub(super) exit: Option<bool>,
}

/// A running vat.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    pub(super) incarnation: VatIncarnation,
    /// Deliveries not yet answered; `true`: the first of a hand-over.
    pub(super) inbox: VecDeque<(DeliveryId, VatDelivery, bool)>,
    /// What it imports, and whether it can send to it.
    pub(super) imports: BTreeMap<VRef, bool>,
    /// What the kernel knows of its objects, and whether somebody else can send to it.
    pub(super) exports: BTreeMap<VRef, bool>,
    /// Unsettled promises that it knows, and whether it decides them.
    pub(super) promises: BTreeMap<VRef, bool>,
    /// Its objects, exported or not.
    own: BTreeSet<VRef>,
    /// Names given up while what was handed over together was answered: a later delivery may still use them.
    given_up: BTreeSet<VRef>,
    /// The last numbers of imports before the present delivery.
    given_before: BTreeMap<&'static str, u64>,
    /// The results of its messages.
    results: BTreeMap<VRef, u64>,
    store: BTreeMap<Arc<str>, Arc<str>>,
    changed: BTreeMap<Arc<str>, Option<Arc<str>>>,
    pub(super) bootstrap: Body,
    out: Outcome,
}

/// What was found wrong.
pub(super) type Complaint = String;

impl Actor {
    /// Comes up on what is stored.
    pub(super) fn new(start: &VatStart, bootstrap: Body) -> Self {
        let mut actor = Actor {
            incarnation: start.incarnation,
            inbox: VecDeque::new(),
            imports: BTreeMap::new(),
            exports: [(VRef::ROOT, true)].into(),
            promises: BTreeMap::new(),
            own: [VRef::ROOT].into(),
            given_up: BTreeSet::new(),
            given_before: BTreeMap::new(),
            results: BTreeMap::new(),
            store: start.store.iter().cloned().collect(),
            changed: BTreeMap::new(),
            bootstrap,
            out: Outcome::default(),
        };
        for (key, value) in actor.store.clone() {
            let reachable = &*value == "reachable";
            let Some((table, name)) = key.split_once(' ') else { continue };
            let Ok(vref) = name.parse::<VRef>() else { continue };
            match table {
                "import" => drop(actor.imports.insert(vref, reachable)),
                "export" => drop(actor.exports.insert(vref, reachable)),
                "own" => drop(actor.own.insert(vref)),
                "promise" => drop(actor.promises.insert(vref, false)),
                _ => {}
            }
        }
        actor
    }

    /// Does what it does at its start.
    pub(super) fn begin(&mut self, deeds: &[Deed], numbers: &mut u64) -> Outcome {
        self.perform(deeds, numbers);
        self.finish()
    }

    /// What it has stored.
    pub(super) fn store(&self) -> &BTreeMap<Arc<str>, Arc<str>> {
        &self.store
    }

    /// Takes one delivery; `body` tells what a message with that number is to do.
    pub(super) fn take(
        &mut self,
        delivery: &VatDelivery,
        first: bool,
        bodies: &BTreeMap<u64, Body>,
        numbers: &mut u64,
    ) -> Result<Outcome, Complaint> {
        if first {
            self.given_up.clear();
        }
        // Within a delivery new names come in any order.
        self.given_before = ["last.object", "last.promise"].map(|key| (key, self.number(key))).into();
        match delivery {
            VatDelivery::Message { target, message } => self.called(*target, message, bodies, numbers)?,
            VatDelivery::Notify(settled) => self.told(settled)?,
            VatDelivery::DropExports(names) => {
                for &name in names {
                    if self.exports.get(&name) != Some(&true) {
                        return Err(format!("dropExports of {name}, which it does not export"));
                    }
                    self.note_export(name, Some(false));
                }
            }
            VatDelivery::RetireExports(names) => {
                for &name in names {
                    if self.exports.get(&name) != Some(&false) {
                        return Err(format!("retireExports of {name}, which was not dropped"));
                    }
                    self.note_export(name, None);
                }
            }
            VatDelivery::RetireImports(names) => {
                for &name in names {
                    if self.imports.get(&name) != Some(&false) {
                        return Err(format!("retireImports of {name}, which it has not dropped"));
                    }
                    self.note_import(name, None);
                }
            }
            VatDelivery::BringOutYourDead => self.bring_out(),
            // These actors begin nothing by themselves.
            VatDelivery::Wake => return Err("woken without having asked".to_owned()),
        }
        Ok(self.finish())
    }

    fn finish(&mut self) -> Outcome {
        let mut out = std::mem::take(&mut self.out);
        for (key, value) in std::mem::take(&mut self.changed) {
            match value {
                Some(value) => out.store.sets.push((key, value)),
                None => out.store.deletes.push(key),
            }
        }
        out
    }

    fn called(
        &mut self,
        target: VRef,
        message: &Message<VRef>,
        bodies: &BTreeMap<u64, Body>,
        numbers: &mut u64,
    ) -> Result<(), Complaint> {
        self.learn(target, false)?;
        if target.side() != Side::Export || !target.is_object() {
            return Err(format!("a message to {target}"));
        }
        for &slot in &message.methargs.slots {
            self.learn(slot, false)?;
        }
        if let Some(result) = message.result {
            self.learn(result, true)?;
        }
        let method = message.methargs.body.split('"').nth(1).unwrap_or_default();
        let body = if method == "bootstrap" {
            self.bootstrap.clone()
        } else {
            let number = method.parse().map_err(|_| format!("a message called {method}"))?;
            self.out.executed = Some(number);
            self.set(&format!("did {number}"), Some("yes"));
            bodies.get(&number).cloned().ok_or_else(|| format!("message {number}, which nobody sent"))?
        };
        self.perform(&body.deeds, numbers);
        if let (Some(result), Reply::Now { rejected, value }) = (message.result, body.answer)
            && self.promises.get(&result) == Some(&true)
        {
            let value = self.content(&value);
            self.settle(vec![(result, rejected, value)]);
        }
        Ok(())
    }

    fn told(&mut self, settled: &[Resolution<VRef>]) -> Result<(), Complaint> {
        for (at, resolution) in settled.iter().enumerate() {
            let name = resolution.promise;
            if at == 0 && !self.promises.contains_key(&name) && !self.given_up.contains(&name) {
                return Err(format!("a notify of {name}, which it does not await"));
            }
            self.learn_quietly(name)?;
        }
        for resolution in settled {
            for &slot in &resolution.value.slots {
                if settled.iter().all(|other| other.promise != slot) {
                    self.learn(slot, false)?;
                }
            }
        }
        for resolution in settled {
            self.note_promise(resolution.promise, None);
            if let Some(number) = self.results.remove(&resolution.promise)
                && !resolution.rejected
            {
                self.out.fulfilled.push(number);
            }
        }
        Ok(())
    }

    /// Takes note of a name in a delivery.
    fn learn(&mut self, vref: VRef, decides: bool) -> Result<(), Complaint> {
        if vref.is_object() || self.promises.contains_key(&vref) {
            if decides && self.promises.get(&vref) == Some(&true) {
                return Err(format!("{vref} as a result, which it decides already"));
            }
            if decides {
                self.note_promise(vref, Some(true));
            }
            return self.learn_quietly(vref);
        }
        self.learn_quietly(vref)?;
        if decides {
            self.note_promise(vref, Some(true));
        } else {
            self.out.syscalls.push(VatSyscall::Subscribe(vref));
        }
        Ok(())
    }

    fn learn_quietly(&mut self, vref: VRef) -> Result<(), Complaint> {
        let given_up = self.given_up.contains(&vref);
        match vref {
            VRef::Object(VObject::Import(number)) => {
                if !self.imports.contains_key(&vref) && !given_up {
                    self.new_number("last.object", vref, number)?;
                }
                self.note_import(vref, Some(true));
            }
            VRef::Object(_) if self.exports.contains_key(&vref) => self.note_export(vref, Some(true)),
            VRef::Promise(..) if self.promises.contains_key(&vref) => {}
            VRef::Promise(Side::Import, number) => {
                if !given_up {
                    self.new_number("last.promise", vref, number)?;
                }
                self.note_promise(vref, Some(false));
            }
            VRef::Promise(Side::Export, _) if given_up => self.note_promise(vref, Some(false)),
            VRef::Object(_) if given_up => {}
            VRef::Object(_) | VRef::Promise(Side::Export, _) => {
                return Err(format!("{vref}, which the kernel cannot know"));
            }
        }
        Ok(())
    }

    fn new_number(&mut self, key: &str, vref: VRef, number: u64) -> Result<(), Complaint> {
        let last = self.given_before.get(key).copied().unwrap_or(0);
        if number <= last {
            return Err(format!("{vref} as something new, when number {last} was given already"));
        }
        let last = self.number(key).max(number);
        self.set(key, Some(&last.to_string()));
        Ok(())
    }

    fn note_import(&mut self, vref: VRef, reachable: Option<bool>) {
        self.note("import", vref, reachable);
        match reachable {
            Some(reachable) => drop(self.imports.insert(vref, reachable)),
            None => {
                self.imports.remove(&vref);
                self.given_up.insert(vref);
            }
        }
    }

    fn note_export(&mut self, vref: VRef, reachable: Option<bool>) {
        if vref != VRef::ROOT && matches!(vref, VRef::Object(VObject::Durable(..))) {
            self.note("export", vref, reachable);
        }
        match reachable {
            Some(reachable) => drop(self.exports.insert(vref, reachable)),
            None => {
                self.exports.remove(&vref);
                self.given_up.insert(vref);
            }
        }
    }

    /// What it decides is forgotten at a restart, the rest is remembered.
    fn note_promise(&mut self, vref: VRef, decides: Option<bool>) {
        self.note("promise", vref, decides.filter(|decides| !decides));
        match decides {
            Some(decides) => drop(self.promises.insert(vref, decides)),
            None => {
                self.promises.remove(&vref);
                self.given_up.insert(vref);
            }
        }
    }

    fn note(&mut self, table: &str, vref: VRef, state: Option<bool>) {
        let key = format!("{table} {vref}");
        self.set(&key, state.map(|state| if state { "reachable" } else { "known" }));
    }

    fn set(&mut self, key: &str, value: Option<&str>) {
        let (key, value): (Arc<str>, Option<Arc<str>>) = (key.into(), value.map(Into::into));
        let had = match &value {
            Some(value) => self.store.insert(key.clone(), value.clone()),
            None => self.store.remove(&key),
        };
        if had != value {
            self.changed.insert(key, value);
        }
    }

    fn number(&self, key: &str) -> u64 {
        self.store.get(key).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn next(&mut self, key: &str) -> u64 {
        let next = self.number(key) + 1;
        self.set(key, Some(&next.to_string()));
        next
    }

    fn perform(&mut self, deeds: &[Deed], numbers: &mut u64) {
        for deed in deeds {
            self.do_one(deed, numbers);
        }
    }

    fn do_one(&mut self, deed: &Deed, numbers: &mut u64) {
        match deed {
            Deed::Send { target, slots, wanted, body } => {
                let Some(target) = pick(self.nameable(), *target) else { return };
                self.send(target, slots, *wanted, body, numbers);
            }
            Deed::Promise => {
                let promise = VRef::Promise(Side::Export, self.next("next.promise"));
                self.note_promise(promise, Some(true));
            }
            Deed::Object(kind) => {
                let number = self.next("next.object");
                let object = match kind % 3 {
                    0 => VObject::Ephemeral(number),
                    1 => VObject::Virtual(1, number, None),
                    _ => VObject::Durable(1, number, None),
                };
                self.own.insert(VRef::Object(object));
                if kind % 3 == 2 {
                    self.note("own", VRef::Object(object), Some(true));
                }
            }
            Deed::Settle { promise, rejected, value } => {
                let Some(promise) = pick(self.decided(), *promise) else { return };
                let value = self.content(value);
                self.settle(vec![(promise, *rejected, value)]);
            }
            Deed::Ring(picks) => {
                let ring: Vec<VRef> = picks.iter().filter_map(|at| pick(self.decided(), *at)).collect();
                let ring: Vec<VRef> = ring.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
                let next = ring.iter().cycle().skip(1);
                let group = ring.iter().zip(next).map(|(&promise, &next)| (promise, false, reference(next)));
                let group = group.collect::<Vec<_>>();
                self.settle(group);
            }
            Deed::Drop(at) => {
                if let Some(import) = pick(self.imports_that(true), *at) {
                    self.drop_import(import);
                }
            }
            Deed::RetireImport(at) => {
                if let Some(import) = pick(self.imports_that(false), *at) {
                    self.retire_import(import);
                }
            }
            Deed::RetireExport(at) => {
                let dropped =
                    self.exports.iter().filter(|(_, reachable)| !**reachable).map(|(name, _)| *name);
                if let Some(export) = pick(dropped.collect(), *at) {
                    self.out.syscalls.push(VatSyscall::RetireExports(vec![export]));
                    self.note_export(export, None);
                }
            }
            Deed::Abandon(at) => {
                let exports = self.exports.keys().copied().filter(|export| *export != VRef::ROOT);
                if let Some(export) = pick(exports.collect(), *at) {
                    self.out.syscalls.push(VatSyscall::AbandonExports(vec![export]));
                    self.note_export(export, None);
                }
            }
            Deed::Store(key, true) => self.set(&format!("row{key}"), None),
            Deed::Store(key, false) => self.set(&format!("row{key}"), Some("")),
            Deed::Exit(failure) => {
                self.out.exit.get_or_insert(*failure);
                let info = CapData::data("#\"enough\"");
                self.out.syscalls.push(VatSyscall::Exit { failure: *failure, info });
            }
            Deed::Illegal(kind) => self.misbehave(*kind),
            Deed::SettleAll => {
                let plain = || CapData::data("#\"#undefined\"");
                let all = self.decided().into_iter().map(|promise| (promise, false, plain())).collect();
                self.settle(all);
            }
            Deed::ForgetAll => {
                self.imports_that(true).into_iter().for_each(|import| self.drop_import(import));
                self.imports_that(false).into_iter().for_each(|import| self.retire_import(import));
            }
        }
    }

    fn send(&mut self, target: VRef, slots: &[Pick], wanted: Wanted, body: &Body, numbers: &mut u64) {
        *numbers += 1;
        let number = *numbers;
        let slots: Vec<VRef> = slots.iter().filter_map(|at| pick(self.nameable(), *at)).collect();
        self.export(target);
        slots.iter().for_each(|slot| self.export(*slot));
        let result = match wanted {
            Wanted::No => None,
            Wanted::New => Some(VRef::Promise(Side::Export, self.next("next.promise"))),
            Wanted::Forwarded(at) => pick(self.decided(), at),
        };
        let args: Vec<String> = slots.iter().enumerate().map(|(at, slot)| quoted(at, *slot)).collect();
        let methargs = CapData { body: format!("#[\"{number}\",[{}]]", args.join(",")).into(), slots };
        self.out.syscalls.push(VatSyscall::Send { target, message: Message { methargs, result } });
        if let Some(result) = result {
            self.note_promise(result, Some(false));
            self.results.insert(result, number);
            self.out.syscalls.push(VatSyscall::Subscribe(result));
        }
        self.out.sent.push(Sent { number, target, body: body.clone() });
    }

    fn settle(&mut self, group: Vec<(VRef, bool, CapData<VRef>)>) {
        if group.is_empty() {
            return;
        }
        for (promise, ..) in &group {
            self.note_promise(*promise, None);
            self.out.settled.push(*promise);
        }
        let resolution = |(promise, rejected, value)| Resolution { promise, rejected, value };
        self.out.syscalls.push(VatSyscall::Resolve(group.into_iter().map(resolution).collect()));
    }

    fn content(&mut self, content: &Content) -> CapData<VRef> {
        let picks = match content {
            Content::Plain => return CapData::data("#\"#undefined\""),
            Content::Reference(at) => {
                let Some(vref) = pick(self.nameable(), *at) else { return CapData::data("#null") };
                self.export(vref);
                return reference(vref);
            }
            Content::List(picks) => picks,
        };
        let slots: Vec<VRef> = picks.iter().filter_map(|at| pick(self.nameable(), *at)).collect();
        slots.iter().for_each(|slot| self.export(*slot));
        let items: Vec<String> = slots.iter().enumerate().map(|(at, slot)| quoted(at, *slot)).collect();
        CapData { body: format!("#[{}]", items.join(",")).into(), slots }
    }

    /// Naming an object of its own exports it.
    fn export(&mut self, vref: VRef) {
        if self.own.contains(&vref) {
            self.note_export(vref, Some(true));
        }
    }

    fn bring_out(&mut self) {
        for import in self.imports_that(true).into_iter().step_by(3) {
            self.drop_import(import);
        }
        for import in self.imports_that(false).into_iter().step_by(2) {
            self.retire_import(import);
        }
    }

    fn drop_import(&mut self, import: VRef) {
        self.out.syscalls.push(VatSyscall::DropImports(vec![import]));
        self.note_import(import, Some(false));
    }

    fn retire_import(&mut self, import: VRef) {
        self.out.syscalls.push(VatSyscall::RetireImports(vec![import]));
        self.note_import(import, None);
    }

    fn nameable(&self) -> Vec<VRef> {
        let imports = self.imports_that(true).into_iter();
        imports.chain(self.own.iter().copied()).chain(self.promises.keys().copied()).collect()
    }

    fn imports_that(&self, reachable: bool) -> Vec<VRef> {
        self.imports.iter().filter(|(_, is)| **is == reachable).map(|(name, _)| *name).collect()
    }

    fn decided(&self) -> Vec<VRef> {
        self.promises.iter().filter(|(_, decides)| **decides).map(|(name, _)| *name).collect()
    }

    fn misbehave(&mut self, kind: u8) {
        let unknown = VRef::Object(VObject::Import(900_000));
        let never = VRef::Promise(Side::Import, 900_000);
        let mute = |target, slots: Vec<VRef>, result| {
            let args: Vec<String> = slots.iter().enumerate().map(|(at, slot)| quoted(at, *slot)).collect();
            let methargs = CapData { body: format!("#[\"0\",[{}]]", args.join(",")).into(), slots };
            VatSyscall::Send { target, message: Message { methargs, result } }
        };
        let plain = || CapData::data("#null");
        let other = self.promises.iter().find(|(name, decides)| !**decides && name.side() == Side::Import);
        let other = other.map_or(never, |(name, _)| *name);
        let [kept, dropped] =
            [true, false].map(|is| self.imports_that(is).first().copied().unwrap_or(unknown));
        let once = |promise| Resolution { promise, rejected: false, value: plain() };
        self.out.syscalls.push(match kind {
            0 => mute(unknown, Vec::new(), None),
            1 => VatSyscall::Subscribe(VRef::ROOT),
            2 => VatSyscall::Subscribe(never),
            3 => {
                let twice = VRef::Promise(Side::Export, 900_000);
                VatSyscall::Resolve(vec![once(twice), once(twice)])
            }
            4 => VatSyscall::DropImports(vec![unknown]),
            5 => VatSyscall::DropImports(vec![other]),
            6 => VatSyscall::DropImports(vec![VRef::ROOT]),
            7 => VatSyscall::RetireImports(vec![kept]),
            8 => VatSyscall::RetireExports(vec![VRef::ROOT]),
            9 => VatSyscall::AbandonExports(vec![VRef::Object(VObject::Ephemeral(900_000))]),
            10 => VatSyscall::AbandonExports(vec![VRef::ROOT]),
            11 => mute(VRef::ROOT, Vec::new(), Some(other)),
            12 => mute(VRef::ROOT, vec![unknown], None),
            _ => mute(dropped, Vec::new(), None),
        });
        self.out.illegal = true;
    }
}

fn pick<T: Copy>(among: Vec<T>, at: Pick) -> Option<T> {
    let at = usize::try_from(at).unwrap_or(0).checked_rem(among.len())?;
    among.get(at).copied()
}

fn quoted(at: usize, vref: VRef) -> String {
    format!("\"{}{at}\"", if vref.is_object() { '$' } else { '&' })
}

fn reference(vref: VRef) -> CapData<VRef> {
    CapData { body: format!("#{}", quoted(0, vref)).into(), slots: vec![vref] }
}
