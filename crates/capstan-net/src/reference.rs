//! Channels to kernels of the reference, whose protocol name `whatever` the swarm cannot negotiate: it has no leading
//! slash. So this goes below the swarm, on the same transport (TCP, noise, yamux), with its own negotiation.
//!
//! Frames, handshakes and sessions above a channel are the same as everywhere.

use crate::config::NetError;
use crate::fault;
use crate::framing;
use capstan_wire::link::{DialFault, FaultCode};
use futures::future::{BoxFuture, poll_fn};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt, StreamExt};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::core::{Endpoint, Transport};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, noise, tcp, yamux};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

/// The reference's name for a channel.
pub(crate) const CHANNEL: &str = "whatever";
const PING: &str = "/ipfs/ping/1.0.0";
const IDENTIFY: &str = "/ipfs/id/1.0.0";
pub(crate) const SERVED: [&str; 3] = [CHANNEL, PING, IDENTIFY];
const HEADER: &str = "/multistream/1.0.0";
/// Bytes of one line of a negotiation.
const LINE_MAX: usize = 1024;
/// Proposals of one negotiation.
const PROPOSALS_MAX: usize = 16;
/// Securing a connection, or negotiating a stream, takes no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection without a channel ends after this.
const IDLE: Duration = Duration::from_secs(60);
/// Pings that come faster are answered and not told.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// Inbound connections at once.
const CONNECTIONS_MAX: usize = 256;
/// Inbound streams of one connection at once, all kinds.
const STREAMS_MAX: usize = 16;

/// What became of something.
pub(crate) enum Event {
    /// A channel is open.
    Opened { peer: PeerId, we_opened: bool, stream: Channel },
    /// A dial came to nothing.
    DialFailed { peer: PeerId, error: DialFault },
    /// The peer has asked for a sign of life.
    Alive { peer: PeerId },
    /// A listener has this address.
    Listening(Multiaddr),
}

struct Dial {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
}

/// The node's hand on the task below. Dropping it ends the listeners.
pub(crate) struct Reference {
    dials: mpsc::UnboundedSender<Dial>,
}

impl Reference {
    /// Binds the listeners and starts the task.
    pub(crate) fn start(
        key: &Keypair,
        listen: &[String],
    ) -> Result<(Reference, mpsc::UnboundedReceiver<Event>), NetError> {
        let unavailable = |error: noise::Error| NetError::Transport(error.to_string());
        let mut net = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(key).map_err(unavailable)?)
            .multiplex(yamux::Config::default())
            .timeout(PATIENCE)
            .boxed();
        for address in listen {
            let parsed: Multiaddr =
                address.parse().map_err(|source| NetError::Address { address: address.clone(), source })?;
            net.listen_on(ListenerId::next(), parsed).map_err(|error| NetError::Bind {
                address: address.clone(),
                source: io::Error::other(error),
            })?;
        }
        let (dials, asked) = mpsc::unbounded_channel();
        let (events, happened) = mpsc::unbounded_channel();
        tokio::spawn(run(net, Local { key: key.clone(), events }, asked));
        Ok((Reference { dials }, happened))
    }

    /// Looks for the peer at these addresses, one after the other; answered by one event.
    pub(crate) fn dial(&self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let _ = self.dials.send(Dial { peer, addresses });
    }
}

/// What every connection needs of this node.
#[derive(Clone)]
struct Local {
    key: Keypair,
    events: mpsc::UnboundedSender<Event>,
}

async fn run(
    mut net: Boxed<(PeerId, StreamMuxerBox)>,
    local: Local,
    mut asked: mpsc::UnboundedReceiver<Dial>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        tokio::select! {
            dial = asked.recv() => {
                let Some(Dial { peer, addresses }) = dial else { return };
                let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
                let tries = addresses.into_iter().map(|address| net.dial(address, opts));
                let tries: Vec<_> = tries.filter_map(Result::ok).collect();
                tokio::spawn(dialled(local.clone(), peer, tries));
            }
            event = net.select_next_some() => match event {
                TransportEvent::Incoming { upgrade, .. } => {
                    if let Ok(permit) = room.clone().try_acquire_owned() {
                        let local = local.clone();
                        tokio::spawn(async move {
                            if let Ok((peer, muxer)) = upgrade.await {
                                let (connection, ended) = drive(&local, peer, muxer);
                                drop(connection);
                                let _ = ended.await;
                            }
                            drop(permit);
                        });
                    }
                }
                TransportEvent::NewAddress { listen_addr, .. } => {
                    let _ = local.events.send(Event::Listening(listen_addr));
                }
                other => tracing::trace!(?other, "listener of the reference's protocol"),
            },
        }
    }
}

type Try = Pin<Box<dyn Future<Output = io::Result<(PeerId, StreamMuxerBox)>> + Send>>;

async fn dialled(local: Local, peer: PeerId, tries: Vec<Try>) {
    let mut error = DialFault::new(FaultCode::NoAddress, "no address that may be dialled");
    for attempt in tries {
        match attempt.await {
            Ok((found, muxer)) if found == peer => {
                let (connection, _ended) = drive(&local, peer, muxer);
                match tokio::time::timeout(PATIENCE, connection.open()).await {
                    Ok(Ok(stream)) => {
                        let _ = local.events.send(Event::Opened { peer, we_opened: true, stream });
                        return;
                    }
                    Ok(Err(why)) => error = DialFault::new(fault::of_io(&why), why.to_string()),
                    Err(_) => error = DialFault::new(FaultCode::TimedOut, "the negotiation timed out"),
                }
            }
            Ok((found, _)) => error = format!("found {found} there").as_str().into(),
            Err(why) => error = DialFault::new(fault::of_io(&why), why.to_string()),
        }
    }
    let _ = local.events.send(Event::DialFailed { peer, error });
}

/// One secured connection. It lives while somebody holds this or a channel on it, and a while longer.
#[derive(Clone)]
struct Connection {
    ask: mpsc::UnboundedSender<oneshot::Sender<io::Result<SubstreamBox>>>,
    held: Arc<()>,
}

impl Connection {
    async fn open(&self) -> io::Result<Channel> {
        let (answer, opened) = oneshot::channel();
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        self.ask.send(answer).map_err(|_| gone())?;
        let mut stream = opened.await.map_err(|_| gone())??;
        propose(&mut stream, CHANNEL).await?;
        Ok(Channel { stream, _held: self.held.clone() })
    }
}

/// A stream for frames; it keeps its connection.
pub(crate) struct Channel {
    stream: SubstreamBox,
    _held: Arc<()>,
}

impl AsyncRead for Channel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, bytes)
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// Starts the task that moves a connection: nothing on it moves unless the muxer is polled.
fn drive(local: &Local, peer: PeerId, mut muxer: StreamMuxerBox) -> (Connection, oneshot::Receiver<()>) {
    let (ask, mut asked) = mpsc::unbounded_channel::<oneshot::Sender<io::Result<SubstreamBox>>>();
    let (over, ended) = oneshot::channel();
    let held = Arc::new(());
    let connection = Connection { ask, held: held.clone() };
    let local = local.clone();
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(STREAMS_MAX));
        let mut waiting: VecDeque<oneshot::Sender<io::Result<SubstreamBox>>> = VecDeque::new();
        let mut idle = tokio::time::interval(IDLE);
        idle.reset();
        let mut was_idle = false;
        let moved = poll_fn(|cx| {
            loop {
                let mut progress = false;
                if let Poll::Ready(Some(asker)) = asked.poll_recv(cx) {
                    waiting.push_back(asker);
                    progress = true;
                }
                match muxer.poll_unpin(cx) {
                    Poll::Ready(Ok(_)) => progress = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
                match muxer.poll_inbound_unpin(cx) {
                    Poll::Ready(Ok(stream)) => {
                        if let Ok(permit) = room.clone().try_acquire_owned() {
                            tokio::spawn(
                                serve(local.clone(), peer, stream, held.clone()).map(|()| drop(permit)),
                            );
                        }
                        progress = true;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
                if !waiting.is_empty() {
                    match muxer.poll_outbound_unpin(cx) {
                        Poll::Ready(Ok(stream)) => {
                            if let Some(asker) = waiting.pop_front() {
                                let _ = asker.send(Ok(stream));
                            }
                            progress = true;
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => {}
                    }
                }
                if idle.poll_tick(cx).is_ready() {
                    let is_idle = Arc::strong_count(&held) == 1;
                    if is_idle && was_idle {
                        return Poll::Ready(());
                    }
                    (was_idle, progress) = (is_idle, true);
                }
                if !progress {
                    return Poll::Pending;
                }
            }
        });
        moved.await;
        let _ = tokio::time::timeout(PATIENCE, muxer.close()).await;
        let _ = over.send(());
    });
    (connection, ended)
}

/// Negotiates one inbound stream and serves it, or hands it up as a channel.
async fn serve(local: Local, peer: PeerId, mut stream: SubstreamBox, held: Arc<()>) {
    let named = tokio::time::timeout(PATIENCE, answer(&mut stream)).await;
    let served = match named {
        Ok(Ok(CHANNEL)) => {
            let stream = Channel { stream, _held: held };
            let _ = local.events.send(Event::Opened { peer, we_opened: false, stream });
            return;
        }
        Ok(Ok(PING)) => pong(&local, peer, stream).boxed(),
        Ok(Ok(_)) => identify(stream, local.key.clone()).boxed(),
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "a stream was not negotiated"),
        Err(_) => return tracing::debug!(%peer, "the negotiation of a stream timed out"),
    };
    drop(held);
    let served: BoxFuture<'_, io::Result<()>> = served;
    let _ = served.await;
}

async fn pong(local: &Local, peer: PeerId, mut stream: SubstreamBox) -> io::Result<()> {
    let mut bytes = [0; 32];
    let mut told = None;
    loop {
        stream.read_exact(&mut bytes).await?;
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        if told.is_none_or(|told: Instant| told.elapsed() >= ALIVE_EVERY) {
            told = Some(Instant::now());
            let _ = local.events.send(Event::Alive { peer });
        }
    }
}

/// Says who we are, as the identify protocol wants it: one length-prefixed protocol buffer of text fields.
async fn identify(mut stream: SubstreamBox, key: Keypair) -> io::Result<()> {
    let mut message = Vec::new();
    let mut field = |number: u8, value: &[u8]| {
        message.push(number << 3 | 2);
        framing::push_bytes(&mut message, value);
    };
    field(1, &key.public().encode_protobuf());
    SERVED.iter().for_each(|name| field(3, name.as_bytes()));
    field(5, b"ipfs/0.1.0");
    field(6, concat!("capstan/", env!("CARGO_PKG_VERSION")).as_bytes());
    let mut whole = Vec::new();
    framing::push_bytes(&mut whole, &message);
    stream.write_all(&whole).await?;
    stream.close().await
}

fn malformed(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn push_line(out: &mut Vec<u8>, line: &str) {
    framing::push(out, &format!("{line}\n"));
}

/// Reads one line, and not one byte more: what follows belongs to the protocol that is being negotiated.
async fn line<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<String> {
    let (mut length, mut byte) = (0_usize, [0_u8]);
    for shift in [0, 7] {
        stream.read_exact(&mut byte).await?;
        let [value] = byte;
        length |= usize::from(value & 0x7f) << shift;
        if value & 0x80 == 0 {
            break;
        }
    }
    if byte[0] & 0x80 != 0 || length == 0 || length > LINE_MAX {
        return Err(malformed(format!("a line of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    let text = String::from_utf8(bytes).map_err(|_| malformed("a line that is no text".to_owned()))?;
    let text = text.strip_suffix('\n').ok_or_else(|| malformed("a line without an end".to_owned()))?;
    Ok(text.to_owned())
}

async fn expect_header<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    match line(stream).await? {
        header if header == HEADER => Ok(()),
        other => Err(malformed(format!("{other:?} instead of {HEADER}"))),
    }
}

/// Negotiates a name as the one who opened the stream.
pub(crate) async fn propose<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, name: &str) -> io::Result<()> {
    let mut out = Vec::new();
    push_line(&mut out, HEADER);
    push_line(&mut out, name);
    stream.write_all(&out).await?;
    stream.flush().await?;
    expect_header(stream).await?;
    match line(stream).await? {
        answer if answer == name => Ok(()),
        other => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("{other:?} was answered to {name:?}")))
        }
    }
}

/// Negotiates as the one whom the stream reached; returns the name agreed on.
pub(crate) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<&'static str> {
    expect_header(stream).await?;
    let mut out = Vec::new();
    push_line(&mut out, HEADER);
    for _ in 0..PROPOSALS_MAX {
        stream.write_all(&out).await?;
        stream.flush().await?;
        out.clear();
        let asked = line(stream).await?;
        if let Some(name) = SERVED.iter().find(|name| **name == asked) {
            push_line(&mut out, name);
            stream.write_all(&out).await?;
            stream.flush().await?;
            return Ok(name);
        }
        push_line(&mut out, "na");
    }
    Err(malformed("too many proposals".to_owned()))
}
