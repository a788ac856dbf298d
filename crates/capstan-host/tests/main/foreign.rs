//! A kernel as the reference is on the wire, played by a script over real TCP, noise and yamux: its protocol name, plain
//! handshakes, close and re-dial, cumulative acknowledgements, its reply keys and the polarity of its collection.

use crate::support::within;
use capstan_model::peer::PeerId as Name;
use futures::future::poll_fn;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::core::{Endpoint, Transport};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, noise, tcp, yamux};
use serde_json::{Value, json};
use std::task::Poll;
use tokio::sync::mpsc;

const HEADER: &str = "/multistream/1.0.0\n";
const CHANNEL: &str = "whatever\n";

/// What the kernel keeps on its disk.
#[derive(Default)]
struct Store {
    sent: u64,
    acknowledged: u64,
    received: u64,
    outbox: Vec<(u64, String)>,
    /// The incarnation of the other kernel.
    incarnation: Option<String>,
}

/// The kernel.
pub(crate) struct Foreign {
    key: Keypair,
    net: Boxed<(PeerId, StreamMuxerBox)>,
    pub(crate) address: String,
    incarnation: String,
    /// What its transport has noted; dies with its process.
    note: Option<String>,
    store: Store,
    channel: Option<SubstreamBox>,
}

impl Foreign {
    /// It listens on a free port.
    pub(crate) async fn start(seed: u8, incarnation: &str) -> Foreign {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let mut net = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        net.listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let TransportEvent::NewAddress { listen_addr, .. } = within(net.select_next_some()).await {
                break listen_addr.to_string();
            }
        };
        let (incarnation, store) = (incarnation.to_owned(), Store::default());
        Foreign { key, net, address, incarnation, note: None, store, channel: None }
    }

    pub(crate) fn name(&self) -> Name {
        Name::new(self.key.public().to_peer_id().to_string())
    }

    /// Its process dies and comes back with what it had stored.
    pub(crate) fn restart(&mut self) {
        (self.channel, self.note) = (None, None);
    }

    /// Its process dies and comes back with an empty store: another incarnation, numbers from 1.
    pub(crate) fn wipe(&mut self, incarnation: &str) {
        self.restart();
        self.store = Store::default();
        self.incarnation = incarnation.to_owned();
    }

    /// Dials. False: the other kernel showed another incarnation than before, so the channel was closed; all that was
    /// kept for the former one is gone.
    pub(crate) async fn dial(&mut self, address: &str) -> bool {
        self.channel = None;
        let address: Multiaddr = address.parse().unwrap();
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dial = self.net.dial(address, opts).unwrap();
        let (_, muxer) = within(dial).await.unwrap();
        let (mut stream, _) = within(streams(muxer, true)).await;
        let stream_ref = stream.as_mut().unwrap();
        write(stream_ref, HEADER).await;
        write(stream_ref, CHANNEL).await;
        assert_eq!(read(stream_ref).await.as_deref(), Some(HEADER));
        assert_eq!(read(stream_ref).await.as_deref(), Some(CHANNEL));
        let hello = json!({"method": "handshake", "params": {"incarnationId": self.incarnation}});
        write(stream_ref, &hello.to_string()).await;
        let heard = read(stream_ref).await.unwrap();
        self.judge(stream.unwrap(), &heard, "handshakeAck").await
    }

    /// Waits to be dialled; otherwise like [`Foreign::dial`].
    pub(crate) async fn accept(&mut self) -> bool {
        loop {
            let upgrade = match within(self.net.select_next_some()).await {
                TransportEvent::Incoming { upgrade, .. } => upgrade,
                _ => continue,
            };
            // A dialler may give the connection up when it does not find the name it wants.
            let Ok((_, muxer)) = within(upgrade).await else { continue };
            let (_, mut inbound) = streams(muxer, false).await;
            while let Some(mut stream) = within(inbound.recv()).await {
                if !answer(&mut stream).await {
                    continue;
                }
                let Some(heard) = read(&mut stream).await else { continue };
                let hello = json!({"method": "handshakeAck", "params": {"incarnationId": self.incarnation}});
                write(&mut stream, &hello.to_string()).await;
                return self.judge(stream, &heard, "handshake").await;
            }
        }
    }

    async fn judge(&mut self, mut stream: SubstreamBox, heard: &str, method: &str) -> bool {
        let heard: Value = serde_json::from_str(heard).unwrap();
        assert_eq!(heard["method"], json!(method));
        let observed = heard["params"]["incarnationId"].as_str().unwrap().to_owned();
        let changed = |known: &Option<String>| known.as_ref().is_some_and(|known| *known != observed);
        let noted = changed(&self.note);
        self.note = Some(observed.clone());
        if changed(&self.store.incarnation) {
            self.store = Store::default();
        } else if !noted {
            self.store.incarnation = Some(observed);
            for (_, text) in &self.store.outbox {
                write(&mut stream, text).await;
            }
            self.channel = Some(stream);
            return true;
        }
        self.store.incarnation = Some(observed);
        let _ = stream.close().await;
        false
    }

    /// Sends a numbered frame, or keeps it for the next channel.
    pub(crate) async fn send(&mut self, method: &str, params: Value) {
        self.store.sent += 1;
        let mut frame = json!({"seq": self.store.sent});
        if self.store.received > 0 {
            frame["ack"] = json!(self.store.received);
        }
        (frame["method"], frame["params"]) = (json!(method), params);
        let text = frame.to_string();
        if let Some(channel) = &mut self.channel {
            write(channel, &text).await;
        }
        self.store.outbox.push((self.store.sent, text));
    }

    /// Sends a message.
    pub(crate) async fn call(&mut self, target: &str, body: &str, slots: &[&str], result: &str) {
        let methargs = json!({"body": body, "slots": slots});
        self.send("deliver", json!(["message", target, {"methargs": methargs, "result": result}])).await;
    }

    /// Settles a promise with data.
    pub(crate) async fn fulfil(&mut self, promise: &str, body: &str) {
        let settled = json!([promise, false, {"body": body, "slots": []}]);
        self.send("deliver", json!(["notify", [settled]])).await;
    }

    /// The next new frame: its method and parameters. It is acknowledged at once. `None`: the channel was closed.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            let channel = self.channel.as_mut().unwrap();
            let Some(text) = read(channel).await else {
                self.channel = None;
                return None;
            };
            let mut frame: Value = serde_json::from_str(&text).unwrap();
            let store = &mut self.store;
            if let Some(ack) = frame["ack"].as_u64() {
                assert!(ack <= store.sent, "{text}");
                store.acknowledged = store.acknowledged.max(ack);
                store.outbox.retain(|(seq, _)| *seq > ack);
            }
            let Some(seq) = frame["seq"].as_u64().filter(|seq| *seq > store.received) else { continue };
            // The reference takes any number; a gap would be a frame it never gets.
            assert_eq!(seq, store.received + 1, "{text}");
            store.received = seq;
            write(channel, &json!({"ack": seq}).to_string()).await;
            return Some((frame["method"].as_str().unwrap().to_owned(), frame["params"].take()));
        }
    }

    /// The next frame, which must be the settlement of this promise with data; returns the body.
    pub(crate) async fn settled(&mut self, promise: &str) -> String {
        let (method, params) = self.next().await.unwrap();
        let [name, rejected, value] = &params[1][0].as_array().unwrap()[..] else { panic!("{params}") };
        assert_eq!((method.as_str(), &params[0], name), ("deliver", &json!("notify"), &json!(promise)));
        assert_eq!(rejected, &json!(false), "{value}");
        value["body"].as_str().unwrap().to_owned()
    }

    /// Redeems a URL and returns how the object is addressed.
    pub(crate) async fn redeem(&mut self, url: &str, key: &str) -> String {
        self.send("redeemURL", json!([url, key])).await;
        self.redeemed(key).await
    }

    /// The next frame, which must be the reply to a redemption.
    pub(crate) async fn redeemed(&mut self, key: &str) -> String {
        let (method, params) = self.next().await.unwrap();
        assert_eq!((method.as_str(), &params[0], &params[1]), ("redeemURLReply", &json!(true), &json!(key)));
        params[2].as_str().unwrap().replace('+', "-")
    }
}

/// Moves a connection: opens one stream if wanted, and hands on those that are opened to us.
async fn streams(
    mut muxer: StreamMuxerBox,
    open: bool,
) -> (Option<SubstreamBox>, mpsc::UnboundedReceiver<SubstreamBox>) {
    let (sender, inbound) = mpsc::unbounded_channel();
    let outbound = if open { poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await.ok() } else { None };
    tokio::spawn(poll_fn(move |cx| {
        loop {
            let moved = muxer.poll_unpin(cx);
            match muxer.poll_inbound_unpin(cx) {
                Poll::Ready(Ok(stream)) => drop(sender.send(stream)),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => match moved {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }));
    (outbound, inbound)
}

/// Negotiates a stream that was opened to us; says whether it is a channel.
async fn answer(stream: &mut SubstreamBox) -> bool {
    if read(stream).await.as_deref() != Some(HEADER) {
        return false;
    }
    write(stream, HEADER).await;
    while let Some(name) = read(stream).await {
        if name == CHANNEL {
            write(stream, CHANNEL).await;
            return true;
        }
        write(stream, "na\n").await;
    }
    false
}

async fn write(stream: &mut SubstreamBox, text: &str) {
    let mut bytes = Vec::new();
    let mut length = text.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes.extend_from_slice(text.as_bytes());
    // One that is closed already is noticed by reading.
    if stream.write_all(&bytes).await.is_ok() {
        let _ = stream.flush().await;
    }
}

/// One frame, or one line of a negotiation; `None`: the stream has ended.
async fn read(stream: &mut SubstreamBox) -> Option<String> {
    let (mut length, mut byte) = (0_usize, [0_u8]);
    for shift in [0, 7, 14, 21] {
        within(stream.read_exact(&mut byte)).await.ok()?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut bytes = vec![0; length];
    within(stream.read_exact(&mut bytes)).await.ok()?;
    String::from_utf8(bytes).ok()
}
