//! What a script speaks through.

use crate::passable::Passable;
use capstan_model::capdata::{Message, Resolution};
use capstan_model::refs::{Side, VObject, VRef};
use capstan_model::smallcaps::{Value, encode};
use capstan_model::vat::{StoreChanges, VatSyscall};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A vat's durable store, as its script sees it.
pub(crate) type Store = BTreeMap<Arc<str>, Arc<str>>;

/// One delivery's syscalls and store changes in the making.
#[derive(Debug)]
pub struct Desk<'a> {
    store: &'a mut Store,
    changed: BTreeMap<Arc<str>, Option<Arc<str>>>,
    syscalls: Vec<VatSyscall>,
    pub(crate) wakes: bool,
    /// Differs whenever the kernel's state was set back, so that names made afterwards can be told from earlier ones.
    pub(crate) lineage: u64,
}

impl<'a> Desk<'a> {
    pub(crate) fn over(store: &'a mut Store, lineage: u64) -> Self {
        Desk { store, changed: BTreeMap::new(), syscalls: Vec::new(), wakes: false, lineage }
    }

    pub(crate) fn done(self) -> (Vec<VatSyscall>, StoreChanges) {
        let mut changes = StoreChanges::default();
        for (key, value) in self.changed {
            match value {
                Some(value) => changes.sets.push((key, value)),
                None => changes.deletes.push(key),
            }
        }
        (self.syscalls, changes)
    }

    /// Makes any syscall, legal or not.
    pub fn syscall(&mut self, syscall: VatSyscall) {
        self.syscalls.push(syscall);
    }

    /// Fulfils `promise`, if there is one.
    pub fn fulfil(&mut self, promise: Option<VRef>, value: impl Passable<VRef>) {
        self.settle(promise, false, value.value());
    }

    /// Rejects `promise`, if there is one, with an ordinary error.
    pub fn reject(&mut self, promise: Option<VRef>, message: &str) {
        let error = Value::Error { name: "Error".into(), message: message.into(), error_id: None };
        self.settle(promise, true, error);
    }

    /// Settles `promise`, if there is one.
    pub fn settle(&mut self, promise: Option<VRef>, rejected: bool, value: Value<VRef>) {
        if let Some(promise) = promise {
            let value = encode(&value);
            self.syscalls.push(VatSyscall::Resolve(vec![Resolution { promise, rejected, value }]));
        }
    }

    /// Calls and subscribes to the answer, whose promise is returned.
    pub fn send(&mut self, target: VRef, method: &str, args: Vec<Value<VRef>>) -> VRef {
        let result = self.promise();
        self.message(target, method, args, Some(result));
        self.syscalls.push(VatSyscall::Subscribe(result));
        result
    }

    /// Calls and wants no answer.
    pub fn send_only(&mut self, target: VRef, method: &str, args: Vec<Value<VRef>>) {
        self.message(target, method, args, None);
    }

    fn message(&mut self, target: VRef, method: &str, args: Vec<Value<VRef>>, result: Option<VRef>) {
        let methargs = encode(&Value::Array(vec![method.value(), Value::Array(args)]));
        self.syscalls.push(VatSyscall::Send { target, message: Message { methargs, result } });
    }

    /// Asks for a turn of its own a little later, as a timer does.
    pub fn wake_later(&mut self) {
        self.wakes = true;
    }

    /// Asks to be told.
    pub fn subscribe(&mut self, promise: VRef) {
        self.syscalls.push(VatSyscall::Subscribe(promise));
    }

    /// A promise of this vat, never named before.
    pub fn promise(&mut self) -> VRef {
        VRef::Promise(Side::Export, self.next_number("next.promise"))
    }

    /// An object of this vat, never named before; it outlives restarts.
    pub fn object(&mut self) -> VRef {
        VRef::Object(VObject::Durable(1, self.next_number("next.object"), None))
    }

    /// Draws from a durable counter; the first number is 1.
    pub fn next_number(&mut self, key: &str) -> u64 {
        let next = self.number(key).saturating_add(1);
        self.set(key, &next.to_string());
        next
    }

    /// Reads a durable counter; 0 if there is none.
    pub fn number(&self, key: &str) -> u64 {
        self.get(key).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// All rows whose keys begin with `prefix`.
    pub(crate) fn entries(&self, prefix: &str) -> Vec<(String, Arc<str>)> {
        let rows = self.store.range(Arc::from(prefix)..).take_while(|(key, _)| key.starts_with(prefix));
        rows.map(|(key, value)| (key.to_string(), value.clone())).collect()
    }

    /// Reads the store.
    pub fn get(&self, key: &str) -> Option<Arc<str>> {
        self.store.get(key).cloned()
    }

    /// Writes to the store.
    pub fn set(&mut self, key: &str, value: &str) {
        self.store.insert(key.into(), value.into());
        self.changed.insert(key.into(), Some(value.into()));
    }

    /// Removes from the store.
    pub fn remove(&mut self, key: &str) {
        if self.store.remove(key).is_some() {
            self.changed.insert(key.into(), None);
        }
    }
}
