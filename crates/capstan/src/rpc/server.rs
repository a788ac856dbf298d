//! The daemon's end of the control socket: who may connect, how much, and what happens to a client that leaves.

use super::error::{INVALID_REQUEST, RpcError};
use super::lines::{Line, Lines};
use super::message::{Request, parse_request, response};
use super::methods;
use crate::daemon::Daemon;
use crate::error::Code;
use serde_json::Value as Json;
use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

/// Connections served at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// Requests of one connection under way at a time; more wait in the socket.
const REQUESTS_MAX: usize = 256;
/// How often a client that has said all it wanted is looked at: is it still there?
const PRESENCE_CHECK: Duration = Duration::from_millis(250);
/// How long a client is given to take what it still gets when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves connections until `daemon` stops, then says farewell to the clients.
pub(crate) async fn serve(listener: UnixListener, daemon: Arc<Daemon>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let permit = room.clone().acquire_owned().await.ok()?;
            match listener.accept().await {
                Ok((stream, _)) => Some((stream, permit)),
                Err(error) => {
                    // No descriptor to accept with: it will pass.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PRESENCE_CHECK).await;
                    None
                }
            }
        };
        let (stream, permit) = tokio::select! {
            () = daemon.stopping() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => match accepted {
                Some(accepted) => accepted,
                None => continue,
            },
        };
        if !is_owner(&stream) {
            tracing::warn!("a connection of another user was refused");
            continue;
        }
        let daemon = daemon.clone();
        connections.spawn(async move {
            converse(stream, daemon).await;
            drop(permit);
        });
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(daemon.stop_limit() + FAREWELL, all).await;
}

/// Whether the peer is this user or root.
fn is_owner(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

type Answers = JoinSet<Vec<u8>>;

/// The requests of one connection, so that calls reach the kernel in the order in which they were sent.
#[derive(Default)]
struct LineUp {
    last: Option<oneshot::Receiver<Infallible>>,
}

/// A request's place: it begins when the one before has begun, or is gone.
struct Place {
    before: Option<oneshot::Receiver<Infallible>>,
    /// Dropped when this one has begun, which lets the next begin.
    begun: oneshot::Sender<Infallible>,
}

impl LineUp {
    fn next(&mut self) -> Place {
        let (begun, after) = oneshot::channel();
        Place { before: self.last.replace(after), begun }
    }
}

impl Place {
    /// Runs the request in its turn. Begun means polled once: by then a plain call stands in the kernel's queue. One
    /// that has to redeem a URL first is overtaken.
    async fn begin<T>(self, request: impl Future<Output = T>) -> T {
        if let Some(before) = self.before {
            let _ended = before.await;
        }
        let mut request = std::pin::pin!(request);
        let first = poll_fn(|context| Poll::Ready(request.as_mut().poll(context))).await;
        drop(self.begun);
        match first {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => request.await,
        }
    }
}

/// One connection: requests begin in the order in which they came, and each is answered when it is done. Ends when
/// the client leaves, which abandons what it still waits for.
async fn converse(stream: UnixStream, daemon: Arc<Daemon>) {
    let (reader, mut writer) = stream.into_split();
    let mut lines = Lines::new(reader, super::REQUEST_BYTES_MAX);
    let mut answers = Answers::new();
    let mut line_up = LineUp::default();
    let mut reading = true;
    while reading || !answers.is_empty() {
        tokio::select! {
            line = lines.next(), if reading && answers.len() < REQUESTS_MAX => match line {
                Ok(Line::Text(line)) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(Line::Text(line)) => begin(&line, &daemon, &mut line_up, &mut answers),
                Ok(Line::TooLong) => {
                    let why = format!("Request is longer than {} bytes", super::REQUEST_BYTES_MAX);
                    let refusal = response(&Json::Null, Err(RpcError::new(INVALID_REQUEST, why)));
                    let _ = write(&mut writer, &refusal).await;
                    return;
                }
                Ok(Line::End) => reading = false,
                Err(_) => return,
            },
            Some(answer) = answers.join_next() => {
                if let Ok(answer) = answer && write(&mut writer, &answer).await.is_err() {
                    return;
                }
            }
            () = departed(&writer), if !reading => return,
            () = daemon.stopped() => {
                while let Ok(Some(Ok(answer))) = tokio::time::timeout(FAREWELL, answers.join_next()).await {
                    if write(&mut writer, &answer).await.is_err() {
                        return;
                    }
                }
                return;
            }
        }
    }
}

async fn write(writer: &mut OwnedWriteHalf, line: &[u8]) -> std::io::Result<()> {
    writer.write_all(line).await
}

/// Starts a request; its answer comes out of `answers`.
fn begin(line: &[u8], daemon: &Arc<Daemon>, line_up: &mut LineUp, answers: &mut Answers) {
    let daemon = daemon.clone();
    match parse_request(line) {
        Ok(Request { id, method, params }) => {
            let place = line_up.next();
            answers.spawn(async move {
                // A set of its own, so that a panic becomes an answer and leaving ends it.
                let mut call = JoinSet::new();
                call.spawn(async move { place.begin(methods::call(&daemon, &method, params)).await });
                let outcome = match call.join_next().await {
                    Some(Ok(outcome)) => outcome,
                    Some(Err(_)) | None => {
                        Err(RpcError::failed(Code::Internal, "the request failed; see the log"))
                    }
                };
                response(&id, outcome)
            });
        }
        Err((id, error)) => {
            answers.spawn(async move { response(&id, Err(error)) });
        }
    }
}

/// Waits until the client has closed its end altogether; having said all it wants is not leaving.
async fn departed(writer: &OwnedWriteHalf) {
    loop {
        match writer.as_ref().ready(Interest::WRITABLE).await {
            Ok(ready) if !ready.is_write_closed() => tokio::time::sleep(PRESENCE_CHECK).await,
            Ok(_) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LineUp;
    use std::sync::{Arc, Mutex};
    use tokio::task::JoinSet;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_begin_in_the_order_in_which_they_came() {
        let mut line_up = LineUp::default();
        let places: Vec<_> = (0..500).map(|number| (number, line_up.next())).collect();
        let begun = Arc::new(Mutex::new(Vec::new()));
        let mut requests = JoinSet::new();
        for (number, place) in places.into_iter().rev() {
            let begun = begun.clone();
            requests.spawn(place.begin(async move {
                begun.lock().expect("no test panics with it").push(number);
                tokio::task::yield_now().await;
            }));
        }
        while requests.join_next().await.is_some() {}
        let begun = begun.lock().expect("no test panics with it").clone();
        assert_eq!(begun, (0..500).collect::<Vec<_>>());
    }
}
