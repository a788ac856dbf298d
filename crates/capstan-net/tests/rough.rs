//! Peers that do not mean well.

use crate::station::{Station, talk};
use capstan_net::NodeConfig;
use capstan_wire::seam::LinkEvent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A frame longer than the receiver's limit ends the channel, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r41_oversize_frame_closes_the_channel_and_others_go_on() {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
    let small = NodeConfig { listen, frame_bytes_max: 1_000, ..NodeConfig::new([20; 32]) };
    let mut one = Station::with(small).await;
    let mut two = Station::start(21).await;
    two.want(&one);
    talk(&mut one, &mut two).await;
    two.send(["x".repeat(1_001)]);
    let too_long = |_: &Station, event: &LinkEvent| match event {
        LinkEvent::ChannelClosed { reason, .. } => reason == "frame of 1001 bytes, limit 1000",
        _ => false,
    };
    one.until(too_long).await;
    two.until(|_, event| matches!(event, LinkEvent::ChannelClosed { .. })).await;
    talk(&mut one, &mut two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_on_the_socket_disturbs_nobody() {
    let (mut one, mut two) = (Station::start(22).await, Station::start(23).await);
    let parts: Vec<&str> = one.address[0].split('/').collect();
    for junk in [&b"\x13/multistream/1.0.0\n\xff\xff\xff\xff"[..], &[0xff; 4096], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut socket = tokio::net::TcpStream::connect(format!("{}:{}", parts[2], parts[4])).await.unwrap();
        socket.write_all(junk).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Closed or reset, both are fine; that it ends is what counts.
        let ended = socket.read_to_end(&mut answer);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.expect("an end");
    }
    two.want(&one);
    talk(&mut one, &mut two).await;
}
