//! Kernel services in a few lines of Rust.

use super::{Event, KernelId, World};
use capstan_kernel::host_op::{Answer, HostOp};
use capstan_kernel::input::{CallId, Input};
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, ObjectId};
use capstan_model::smallcaps::{Value, decode, encode};
use std::sync::Arc;

/// How long a service may take, milliseconds.
const SERVICE_MAX: u64 = 20;

/// What a service answers to a method with arguments: a value, or what went wrong.
pub type Serve = fn(&str, &[Value<KRef>]) -> Result<Value<KRef>, String>;

/// A service that a kernel has code for.
#[derive(Debug)]
pub(crate) struct Service {
    serve: Serve,
    /// Keeps its calls unanswered.
    paused: bool,
    /// The methods it was called with, in all lives of the kernel.
    called: Vec<String>,
}

/// A call of a kernel service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceCall {
    pub(crate) call: CallId,
    pub(crate) service: Arc<str>,
    pub(crate) methargs: CapData<KRef>,
}

impl World {
    /// Gives the kernel a service, in this and all later lives; returns its object.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[track_caller]
    pub fn service(&mut self, kernel: KernelId, name: &str, serve: Serve) -> ObjectId {
        let name: Arc<str> = name.into();
        let node = self.node_mut(kernel);
        node.services.insert(name.clone(), Service { serve, paused: false, called: Vec::new() });
        node.config.services.push((name.clone(), false));
        match self.ask(kernel, HostOp::RegisterService { name, system_only: false, holds: None }) {
            Ok(Answer::Object { object }) => object,
            other => panic!("not registered: {other:?}\n{}", self.trace(60)),
        }
    }

    /// Keeps the calls of a service unanswered from now on.
    pub fn pause_service(&mut self, kernel: KernelId, name: &str) {
        if let Some(service) = self.node_mut(kernel).services.get_mut(name) {
            service.paused = true;
        }
    }

    /// Answers the calls that a service kept, and those to come.
    pub fn resume_service(&mut self, kernel: KernelId, name: &str) {
        let node = self.node_mut(kernel);
        if let Some(service) = node.services.get_mut(name) {
            service.paused = false;
        }
        let Some(process) = &mut node.process else { return };
        let kept = process.kept_calls.extract_if(.., |kept| *kept.service == *name);
        for call in kept.collect::<Vec<_>>() {
            self.answer_service(kernel, &call);
        }
    }

    /// The methods that a service was called with, in all lives of its kernel.
    pub fn served(&self, kernel: KernelId, name: &str) -> &[String] {
        self.node(kernel).services.get(name).map_or(&[], |service| &service.called)
    }

    /// Takes a call that left the kernel.
    pub(crate) fn serve(&mut self, kernel: KernelId, call: ServiceCall) {
        let (method, _) = parts(&call.methargs);
        let node = self.node_mut(kernel);
        let service = node.services.get_mut(&call.service);
        let paused = service.is_some_and(|service| {
            service.called.push(method);
            service.paused
        });
        match &mut node.process {
            Some(process) if paused => process.kept_calls.push(call),
            Some(_) => self.answer_service(kernel, &call),
            None => {}
        }
    }

    fn answer_service(&mut self, kernel: KernelId, call: &ServiceCall) {
        let (method, args) = parts(&call.methargs);
        let node = self.node(kernel);
        let life = node.life;
        let outcome = match node.services.get(&call.service) {
            Some(service) => (service.serve)(&method, &args).map(|value| encode(&value)),
            None => Err("no code".to_owned()),
        };
        let at = self.soon(SERVICE_MAX);
        let input = Input::ServiceReplied { call: call.call, outcome };
        self.schedule(at, Event::Arrives(kernel, life, Box::new(input)));
    }
}

/// Method and arguments; what is malformed has no name and none.
fn parts(methargs: &CapData<KRef>) -> (String, Vec<Value<KRef>>) {
    if let Ok(Value::Array(parts)) = decode(methargs)
        && let [Value::String(method), Value::Array(args)] = parts.as_slice()
    {
        return (method.clone(), args.clone());
    }
    (String::new(), Vec::new())
}
