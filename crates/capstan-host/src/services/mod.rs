//! Kernel services: code of the host that vats call like an object (02 §10.2).
//!
//! The kernel knows a service by its name. A call leaves it as an effect, runs on a task of the service, outside the
//! kernel's loop, and comes back as an input: so a service may ask anything of the kernel that serves it.

mod desk;
mod facet;
mod urls;

pub(crate) use desk::{Desk, Order, Registry};
pub(crate) use facet::Forwarder;

use crate::host::{Host, Inner};
use capstan_kernel::host_op::Refusal;
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, ObjectId};
pub use capstan_model::smallcaps::Value;
use capstan_model::smallcaps::decode;
use std::fmt::Display;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A kernel service.
///
/// Calls begin in the order in which the messages were queued, and share one task: a method that computes for long, or
/// blocks, does so on a thread of its own. A call in progress when the kernel dies is lost; its caller is then told
/// `DELIVERY_FAILED`. What a call names stays alive until it is answered; to keep it longer, pin it
/// (`HostOp::Pin`).
///
/// ```
/// use capstan_host::{Call, Service, ServiceError, Value};
/// use capstan_model::id::KRef;
///
/// struct Clock;
///
/// impl Service for Clock {
///     async fn call(&self, call: Call) -> Result<Value<KRef>, ServiceError> {
///         match call.method.as_str() {
///             "now" => Ok(Value::Number(0.0)),
///             _ => Err(call.unknown_method()),
///         }
///     }
/// }
/// ```
pub trait Service: Send + Sync + 'static {
    /// Serves one call. The references in the answer must be alive: given by the call, pinned, or told by the kernel.
    fn call(&self, call: Call) -> impl Future<Output = Result<Value<KRef>, ServiceError>> + Send;
}

/// Why a call failed. Its caller sees the text, behind `[KERNEL:DELIVERY_FAILED]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ServiceError(String);

impl ServiceError {
    /// A failure with this text.
    pub fn new(text: impl Display) -> Self {
        ServiceError(text.to_string())
    }
}

impl From<Refusal> for ServiceError {
    fn from(refusal: Refusal) -> Self {
        match &refusal {
            Refusal::BootstrapRejected(reason) => ServiceError(reason_text(reason)),
            _ => ServiceError::new(refusal),
        }
    }
}

/// The text of what a promise was rejected with.
pub(crate) fn reason_text(reason: &CapData<KRef>) -> String {
    match decode(reason) {
        Ok(Value::Error { message, .. } | Value::String(message)) => message,
        Ok(_) | Err(_) => {
            capstan_model::smallcaps::render(reason).unwrap_or_else(|_| reason.body.to_string())
        }
    }
}

/// How long a promise that stands for an argument may take; as long as a redemption.
const PROMISE_PATIENCE: Duration = Duration::from_secs(40);
const NO_REMOTABLE: &str = "Argument must be a remotable";

/// One call of a service.
#[derive(Clone, Debug)]
pub struct Call {
    /// The name of the service.
    pub service: Arc<str>,
    /// The method.
    pub method: String,
    /// The arguments.
    pub args: Vec<Value<KRef>>,
    host: Weak<Inner>,
}

impl Call {
    fn new(service: Arc<str>, methargs: &CapData<KRef>, host: Weak<Inner>) -> Result<Self, ServiceError> {
        match decode(methargs) {
            Ok(Value::Array(parts)) => match <[Value<KRef>; 2]>::try_from(parts) {
                Ok([Value::String(method), Value::Array(args)]) => Ok(Call { service, method, args, host }),
                Ok(_) | Err(_) => Err(ServiceError::new("a call is a method name and a list of arguments")),
            },
            Ok(_) => Err(ServiceError::new("a call is a method name and a list of arguments")),
            Err(error) => Err(ServiceError::new(error)),
        }
    }

    /// The kernel that serves the call. Holding on to it keeps the kernel running.
    pub fn host(&self) -> Result<Host, ServiceError> {
        Host::upgrade(&self.host).ok_or_else(|| ServiceError::new(crate::driver::STOPPING))
    }

    /// What to answer to a method that the service does not have.
    pub fn unknown_method(&self) -> ServiceError {
        ServiceError(format!("kernel service '{}' has no method '{}'", self.service, self.method))
    }

    /// The argument at `at`, `undefined` if there are not so many.
    pub fn arg(&self, at: usize) -> &Value<KRef> {
        self.args.get(at).unwrap_or(&Value::Undefined)
    }

    /// The argument at `at` as an object.
    pub fn object(&self, at: usize) -> Result<ObjectId, ServiceError> {
        match self.arg(at) {
            Value::Object { slot: KRef::Object(object), .. } => Ok(*object),
            _ => Err(ServiceError::new(NO_REMOTABLE)),
        }
    }

    /// The argument at `at` as an object, also when it is a promise for one. That is waited for, though not for ever: a
    /// service has only so many calls in hand.
    pub async fn settled_object(&self, at: usize) -> Result<ObjectId, ServiceError> {
        let Value::Promise(KRef::Promise(promise)) = self.arg(at) else { return self.object(at) };
        let host = self.host()?;
        let settled = tokio::time::timeout(PROMISE_PATIENCE, host.settlement(*promise)).await;
        let late =
            |_| ServiceError(format!("{promise} is not settled after {} s", PROMISE_PATIENCE.as_secs()));
        let settled = settled.map_err(late)??;
        if settled.rejected {
            return Err(ServiceError(reason_text(&settled.value)));
        }
        match decode(&settled.value) {
            Ok(Value::Object { slot: KRef::Object(object), .. }) => Ok(object),
            Ok(_) | Err(_) => Err(ServiceError::new(NO_REMOTABLE)),
        }
    }

    /// The argument at `at` as a string; `what` says for an error what it should be.
    pub fn text(&self, at: usize, what: &str) -> Result<&str, ServiceError> {
        match self.arg(at) {
            Value::String(text) => Ok(text),
            _ => Err(ServiceError(format!("{what} must be a string"))),
        }
    }
}

type Answer = Result<Value<KRef>, ServiceError>;

/// A service whose type does not matter any more.
pub(crate) trait Server: Send + Sync {
    fn serve(self: Arc<Self>, call: Call) -> Pin<Box<dyn Future<Output = Answer> + Send>>;
}

impl<S: Service> Server for S {
    fn serve(self: Arc<Self>, call: Call) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        Box::pin(async move { self.call(call).await })
    }
}

/// A service that a host has from its start, so that messages queued in an earlier run reach it.
#[derive(Clone)]
pub struct StartService {
    pub(crate) name: Arc<str>,
    pub(crate) system_only: bool,
    pub(crate) server: Arc<dyn Server>,
}

impl StartService {
    /// A service called `name`. `system_only`: given to system subclusters only.
    pub fn new(name: impl Into<Arc<str>>, system_only: bool, service: impl Service) -> Self {
        StartService { name: name.into(), system_only, server: Arc::new(service) }
    }
}

impl std::fmt::Debug for StartService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartService").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The services that every kernel has.
pub(crate) fn built_in(load: Option<&crate::loader::Loader>) -> [StartService; 3] {
    [
        StartService::new("ocapURLIssuerService", false, urls::Issuer),
        StartService::new("ocapURLRedemptionService", false, urls::Redeemer),
        StartService::new("kernelFacet", true, facet::Facet { load: load.cloned() }),
    ]
}
