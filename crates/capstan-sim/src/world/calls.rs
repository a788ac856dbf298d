//! Calls from outside a kernel, and what becomes of them.

use super::{KernelId, World};
use crate::passable::{Passable, plain};
use capstan_kernel::host_op::{Answer, HostOp, Refusal};
use capstan_kernel::input::{Input, RequestId};
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, ObjectId, PromiseId};
use capstan_model::smallcaps::{Value, decode, encode};

/// What is called: an object or promise of the kernel itself, or a URL that it redeems first.
#[derive(Clone, Debug)]
pub enum Target {
    /// By the kernel's own name.
    Known(KRef),
    /// By URL.
    Url(String),
}

impl From<&String> for Target {
    fn from(url: &String) -> Self {
        Target::Url(url.clone())
    }
}
impl From<KRef> for Target {
    fn from(kref: KRef) -> Self {
        Target::Known(kref)
    }
}
impl From<ObjectId> for Target {
    fn from(ko: ObjectId) -> Self {
        Target::Known(ko.into())
    }
}
impl From<PromiseId> for Target {
    fn from(kp: PromiseId) -> Self {
        Target::Known(kp.into())
    }
}

/// Names a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(usize);

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With a value.
    Fulfilled(Value<KRef>),
    /// With a reason.
    Rejected(Value<KRef>),
    /// The kernel did not carry it out, or the redemption failed.
    Refused(String),
    /// The process that was asked is dead.
    Died,
}

/// A call in progress.
#[derive(Clone, Debug)]
pub(crate) struct CallState {
    kernel: KernelId,
    request: RequestId,
    /// What is sent once the URL is redeemed.
    then: Option<CapData<KRef>>,
    outcome: Option<Outcome>,
}

/// A call just made: say what it must come to.
#[must_use = "a call is made to see what it comes to"]
#[derive(Debug)]
pub struct Calling<'w> {
    world: &'w mut World,
    id: CallId,
}

impl Calling<'_> {
    /// Runs on and checks that the call is fulfilled with `value`.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn fulfils(self, value: impl Passable<KRef>) {
        let wanted = Outcome::Fulfilled(plain(value.value()));
        let outcome = self.settle();
        assert_eq!(outcome.as_ref(), Some(&wanted), "\n{}", self.world.trace(60));
    }

    /// Runs on and returns what the call is fulfilled with.
    ///
    /// # Panics
    /// If it is not fulfilled.
    #[track_caller]
    pub fn value(self) -> Value<KRef> {
        match self.settle() {
            Some(Outcome::Fulfilled(value)) => value,
            outcome => panic!("not fulfilled: {outcome:?}\n{}", self.world.trace(60)),
        }
    }

    /// Runs on and checks that the call is fulfilled, whatever with.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn succeeds(self) {
        let _ = self.value();
    }

    /// Runs on and returns the first reference in what the call is fulfilled with.
    ///
    /// # Panics
    /// If it is not fulfilled, or with data only.
    #[track_caller]
    pub fn reference(self) -> KRef {
        let value = self.value();
        match encode(&value).slots.first() {
            Some(kref) => *kref,
            None => panic!("no reference in {value:?}"),
        }
    }

    /// Runs on and checks that the call is rejected, or refused, for a reason that mentions `reason`.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn rejects(self, reason: &str) {
        let outcome = self.settle();
        let told = match &outcome {
            Some(Outcome::Rejected(Value::Error { message, .. })) => message.contains(reason),
            Some(Outcome::Rejected(value)) => format!("{value:?}").contains(reason),
            Some(Outcome::Refused(text)) => text.contains(reason),
            Some(Outcome::Fulfilled(_) | Outcome::Died) | None => false,
        };
        assert!(told, "expected {reason:?}, got {outcome:?}\n{}", self.world.trace(60));
    }

    /// Runs on and checks that the call is still in progress.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn pending(self) -> CallId {
        assert_eq!(self.settle(), None, "\n{}", self.world.trace(60));
        self.id
    }

    /// Leaves the call to itself for now.
    pub fn started(self) -> CallId {
        self.id
    }

    fn settle(&self) -> Option<Outcome> {
        self.world.outcome(self.id)
    }
}

impl World {
    /// Calls a method without arguments, and runs until quiet.
    pub fn call(&mut self, from: KernelId, target: impl Into<Target>, method: &str) -> Calling<'_> {
        self.call_with(from, target, method, vec![])
    }

    /// Calls a method, and runs until quiet.
    pub fn call_with(
        &mut self,
        from: KernelId,
        target: impl Into<Target>,
        method: &str,
        args: Vec<Value<KRef>>,
    ) -> Calling<'_> {
        let id = self.start_call(from, target, method, args);
        self.run_until_quiet();
        Calling { world: self, id }
    }

    /// Makes a call and runs nothing.
    pub fn start_call(
        &mut self,
        from: KernelId,
        target: impl Into<Target>,
        method: &str,
        args: Vec<Value<KRef>>,
    ) -> CallId {
        let methargs = encode(&Value::Array(vec![method.value(), Value::Array(args)]));
        let (op, then) = match target.into() {
            Target::Known(target) => (HostOp::Send { target, methargs }, None),
            Target::Url(url) => (self.redemption(url), Some(methargs)),
        };
        let request = self.request(from, op);
        let outcome = (!self.is_up(from)).then_some(Outcome::Died);
        self.calls.push(CallState { kernel: from, request, then, outcome });
        CallId(self.calls.len() - 1)
    }

    /// Comes back to a call made earlier, after running until quiet.
    pub fn back_to(&mut self, id: CallId) -> Calling<'_> {
        self.run_until_quiet();
        Calling { world: self, id }
    }

    /// What became of a call so far.
    pub fn outcome(&self, id: CallId) -> Option<Outcome> {
        self.calls.get(id.0).and_then(|call| call.outcome.clone())
    }

    /// Asks something of the control surface and runs nothing.
    pub fn request(&mut self, kernel: KernelId, op: HostOp) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.input(kernel, Input::Requested { request, op });
        request
    }

    /// Asks something of the control surface and runs until it is answered.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn ask(&mut self, kernel: KernelId, op: HostOp) -> Result<Answer, Refusal> {
        let request = self.request(kernel, op);
        self.run_until(|world| world.answers.contains_key(&request));
        match self.answers.remove(&request) {
            Some(answer) => answer,
            None => panic!("no answer\n{}", self.trace(60)),
        }
    }

    /// What a request was answered, if it was.
    pub fn answer(&self, request: RequestId) -> Option<&Result<Answer, Refusal>> {
        self.answers.get(&request)
    }

    pub(crate) fn redemption(&mut self, url: String) -> HostOp {
        let reply_key = format!("key-{:016x}", self.chance.next()).into();
        HostOp::RedeemUrl { url, reply_key }
    }

    pub(crate) fn answered(&mut self, kernel: KernelId, request: RequestId, answer: Result<Answer, Refusal>) {
        let Some(at) = self.calls.iter().position(|call| call.request == request) else {
            let twice = self.answers.insert(request, answer);
            assert!(twice.is_none(), "{request:?} is answered twice\n{}", self.trace(60));
            return;
        };
        let Some(call) = self.calls.get_mut(at) else { return };
        assert!(call.outcome.is_none(), "a call is answered twice\n{}", self.trace.tail(60));
        match (answer, call.then.take()) {
            (Ok(Answer::Redeemed { object }), Some(methargs)) => {
                let next = self.request(kernel, HostOp::Send { target: object.into(), methargs });
                if let Some(call) = self.calls.get_mut(at) {
                    call.request = next;
                }
            }
            (Ok(Answer::Settled { rejected, value }), None) => {
                let value = decode(&value).map_or(Value::Undefined, plain);
                call.outcome =
                    Some(if rejected { Outcome::Rejected(value) } else { Outcome::Fulfilled(value) });
            }
            (Ok(other), _) => panic!("not the answer to a call: {other:?}"),
            (Err(refusal), _) => call.outcome = Some(Outcome::Refused(refusal.to_string())),
        }
    }

    pub(crate) fn calls_died(&mut self, kernel: KernelId) {
        for call in self.calls.iter_mut().filter(|call| call.kernel == kernel && call.outcome.is_none()) {
            call.outcome = Some(Outcome::Died);
        }
    }
}
