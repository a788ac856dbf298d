//! JSON-RPC 2.0 in both directions over one stream, one message a line.
//!
//! **The drain rule (03 D-21).** [`drain`] reads message after message and waits for nothing else: a request is begun
//! ([`Desk::begin`] cannot wait) and answered whenever its [`Responder`] is used; what waits for a response is called by
//! the loop itself. So the other end may ask in the middle of what it was asked, and orders keep the order in which they
//! were written, answers among them (D-23).

use crate::fault::Fault;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};

/// The longest line, bytes: the longest frame of a channel with each of its characters escaped.
const LINE_BYTES_MAX: u64 = 128 << 20;
/// Lines joined into one write.
const LINES_JOINED: usize = 64;

/// Answers the requests of the other end.
pub trait Desk: Send {
    /// Begins a request. Must not block; `responder` may be used later and elsewhere.
    fn begin(&mut self, method: &str, params: Value, responder: Responder);
}

/// Reads a request that a type knows; the type is an enum with the method as its tag. Parameters are named. An error
/// repeats no value: it may be a secret in the wrong place.
pub fn parse<T: DeserializeOwned>(methods: &[&str], method: &str, params: Value) -> Result<T, Fault> {
    if !methods.contains(&method) {
        return Err(Fault::new(Fault::UNKNOWN_METHOD, format!("there is no method {method:?}")));
    }
    let refused = |why: &str| Fault::new(Fault::INVALID_PARAMS, format!("{method}: {why}"));
    let params = match params {
        Value::Null => json!([]),
        Value::Array(members) if !members.is_empty() => return Err(refused("its parameters are named")),
        Value::Object(_) | Value::Array(_) => params,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(refused("its parameters are an object"));
        }
    };
    serde_json::from_value(json!({"method": method, "params": params})).map_err(|error| {
        let text = error.to_string();
        refused(if text.starts_with("invalid") { "a parameter has the wrong type" } else { &text })
    })
}

/// Owes the other end an answer. One that is dropped answers that the request was abandoned.
#[derive(Debug)]
pub struct Responder {
    id: Value,
    out: Option<mpsc::UnboundedSender<String>>,
}

impl Responder {
    /// Answers. When the stream is gone nobody is told (03 D-22).
    pub fn answer(mut self, outcome: Result<Value, Fault>) {
        self.say(outcome);
    }

    fn say(&mut self, outcome: Result<Value, Fault>) {
        let Some(out) = self.out.take() else { return };
        let id = std::mem::take(&mut self.id);
        let response = match outcome {
            Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
            Err(fault) => json!({"jsonrpc": "2.0", "id": id, "error": fault.to_error()}),
        };
        if out.send(response.to_string()).is_err() {
            tracing::debug!("an answer found the stream closed");
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.say(Err(Fault::failed("the request was abandoned")));
    }
}

type Then = Box<dyn FnOnce(Result<Value, Fault>) + Send>;

/// Asks the other end. Clones ask over the same stream.
#[derive(Clone)]
pub struct Caller {
    shared: Arc<Shared>,
}

struct Shared {
    prefix: &'static str,
    out: mpsc::UnboundedSender<String>,
    waiting: Mutex<Waiting>,
}

struct Waiting {
    next: u64,
    by_number: BTreeMap<u64, Then>,
    ended: bool,
}

/// Names a request of ours that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked(u64);

#[derive(Serialize)]
struct Request<'r, T> {
    jsonrpc: &'static str,
    id: String,
    #[serde(flatten)]
    call: &'r T,
}

impl Caller {
    /// Asks; `then` is called with the answer by the loop that reads the stream, so it must not block. If the stream has
    /// ended before, it is dropped uncalled.
    pub fn call<T: Serialize>(
        &self,
        call: &T,
        then: impl FnOnce(Result<Value, Fault>) + Send + 'static,
    ) -> Asked {
        let mut waiting = self.waiting();
        waiting.next += 1;
        let number = waiting.next;
        let id = format!("{}{number}", self.shared.prefix);
        let asked = Asked(number);
        if waiting.ended {
            return asked;
        }
        // Under the lock, so that numbers rise in the order of the lines.
        match serde_json::to_string(&Request { jsonrpc: "2.0", id, call }) {
            Ok(line) => {
                waiting.by_number.insert(number, Box::new(then));
                let _ = self.shared.out.send(line);
            }
            Err(error) => {
                drop(waiting);
                then(Err(Fault::failed(format!("the request cannot be written: {error}"))));
            }
        }
        asked
    }

    /// Asks and waits for the answer.
    pub async fn ask<T: Serialize>(&self, call: &T) -> Result<Value, Fault> {
        let (answer, answered) = oneshot::channel();
        self.call(call, move |outcome| drop(answer.send(outcome)));
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Asks for something whose answer changes nothing; a refusal is logged.
    pub fn tell<T: Serialize>(&self, call: &T) {
        self.call(call, |outcome| {
            if let Err(fault) = outcome {
                tracing::debug!(%fault, "a request was refused");
            }
        });
    }

    /// Gives a request up when it has not been answered within `limit`. To be called on a tokio runtime.
    pub fn limit(&self, asked: Asked, limit: Duration) {
        let shared = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            let Some(shared) = shared.upgrade() else { return };
            let late = Caller { shared }.waiting().by_number.remove(&asked.0);
            if let Some(then) = late {
                then(Err(Fault::failed(format!("no answer within {} ms", limit.as_millis()))));
            }
        });
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, id: &Value, outcome: Result<Value, Fault>) {
        let number = id.as_str().and_then(|id| id.strip_prefix(self.shared.prefix)?.parse().ok());
        let then = number.and_then(|number: u64| self.waiting().by_number.remove(&number));
        match then {
            Some(then) => then(outcome),
            None => tracing::warn!(%id, "a response to a request that nobody made"),
        }
    }

    fn end(&self) {
        let mut waiting = self.waiting();
        waiting.ended = true;
        let abandoned = std::mem::take(&mut waiting.by_number);
        drop(waiting);
        for then in abandoned.into_values() {
            then(Err(gone()));
        }
    }
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("prefix", &self.shared.prefix).finish_non_exhaustive()
    }
}

fn gone() -> Fault {
    Fault::failed("the other process is gone")
}

/// The writing half of a stream: a way to ask over it, and a task that writes until nobody asks or answers any more. `prefix`
/// begins the ids of our requests. To be called on a tokio runtime.
pub fn caller(prefix: &'static str, mut writer: impl AsyncWrite + Send + Unpin + 'static) -> Caller {
    let (out, mut lines) = mpsc::unbounded_channel::<String>();
    tokio::spawn(async move {
        let (mut joined, mut buffer) = (Vec::new(), Vec::new());
        while lines.recv_many(&mut joined, LINES_JOINED).await > 0 {
            buffer.clear();
            for line in joined.drain(..) {
                buffer.extend_from_slice(line.as_bytes());
                buffer.push(b'\n');
            }
            if let Err(error) = writer.write_all(&buffer).await {
                tracing::debug!(%error, "the stream takes nothing more");
                return;
            }
        }
        let _ = writer.shutdown().await;
    });
    let waiting = Mutex::new(Waiting { next: 0, by_number: BTreeMap::new(), ended: false });
    Caller { shared: Arc::new(Shared { prefix, out, waiting }) }
}

/// Reads the stream to its end: begins requests at the desk and completes responses. Whatever still waits then is told
/// that the other end is gone.
pub async fn drain(reader: impl AsyncRead + Unpin, caller: &Caller, desk: &mut impl Desk) -> io::Result<()> {
    let outcome = read(reader, caller, desk).await;
    caller.end();
    outcome
}

async fn read(reader: impl AsyncRead + Unpin, caller: &Caller, desk: &mut impl Desk) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        line.shrink_to(1 << 20);
        let length = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
        if length == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            let why = "a line without an end, or too long";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        match message(&line) {
            Message::Request { id, method, params } => {
                let responder = Responder { id, out: Some(caller.shared.out.clone()) };
                desk.begin(&method, params, responder);
            }
            Message::Response { id, outcome } => caller.answered(&id, outcome),
            Message::Neither { id, fault } => {
                Responder { id, out: Some(caller.shared.out.clone()) }.answer(Err(fault));
            }
        }
    }
}

enum Message {
    Request { id: Value, method: String, params: Value },
    Response { id: Value, outcome: Result<Value, Fault> },
    Neither { id: Value, fault: Fault },
}

fn message(line: &[u8]) -> Message {
    let invalid = |id, why: &str| Message::Neither { id, fault: Fault::new(Fault::INVALID_REQUEST, why) };
    let mut object: Map<String, Value> = match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return invalid(Value::Null, "not an object"),
        Err(_) => {
            let fault = Fault::new(Fault::PARSE_ERROR, "not JSON");
            return Message::Neither { id: Value::Null, fault };
        }
    };
    let mut take = |key| object.remove(key);
    let id = take("id").filter(|id| id.is_string() || id.is_number());
    if take("jsonrpc").as_ref().and_then(Value::as_str) != Some("2.0") {
        return invalid(id.unwrap_or_default(), "not JSON-RPC 2.0");
    }
    match (id, take("method"), take("result"), take("error")) {
        (Some(id), Some(Value::String(method)), None, None) => {
            Message::Request { id, method, params: take("params").unwrap_or_default() }
        }
        (Some(id), None, Some(result), None) => Message::Response { id, outcome: Ok(result) },
        (Some(id), None, None, Some(error)) => {
            Message::Response { id, outcome: Err(Fault::from_error(&error)) }
        }
        // Answering an unreadable answer could go on for ever.
        (id, None, ..) => Message::Response {
            id: id.unwrap_or_default(),
            outcome: Err(Fault::failed("an unreadable answer")),
        },
        (id, Some(_), ..) => invalid(id.unwrap_or_default(), "not a request with an id and a method"),
    }
}
