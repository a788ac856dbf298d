//! Two nodes that mean well.

use crate::station::{Station, talk};
use capstan_model::peer::{ChannelId, PeerId};
use capstan_net::{NetError, Node, NodeConfig, Relay, RelayConfig};
use capstan_wire::seam::{LinkEvent, LinkOrder, SendFault};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_frames_arrive_in_order() {
    let (mut one, mut two) = (Station::start(1).await, Station::start(2).await);
    one.want(&two);
    talk(&mut one, &mut two).await;
    two.received.clear();
    let texts: Vec<String> = (0..10_000).map(|n| format!("frame {n}")).collect();
    for chunk in texts.chunks(100) {
        one.send(chunk.to_vec());
    }
    two.receive(10_000).await;
    assert!(two.received.iter().map(|text| text.as_ref()).eq(texts.iter().map(String::as_str)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r50_a_cut_channel_comes_back() {
    let (mut one, mut two) = (Station::start(3).await, Station::start(4).await);
    one.want(&two);
    talk(&mut one, &mut two).await;
    for _ in 0..5 {
        let channel = two.channel.unwrap();
        two.node.order(LinkOrder::CloseChannel { channel, reason: "test".into() });
        two.until(|_, event| matches!(event, LinkEvent::ChannelClosed { .. })).await;
        one.until(|_, event| matches!(event, LinkEvent::ChannelClosed { .. })).await;
        talk(&mut one, &mut two).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r76_both_dial_at_once() {
    for round in 0..30 {
        let (mut one, mut two) = (Station::start(100 + round).await, Station::start(150 + round).await);
        one.want(&two);
        two.want(&one);
        talk(&mut one, &mut two).await;
        tokio::join!(one.node.stop(), two.node.stop());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r68_stop_ends_channels_cleanly() {
    let (mut one, mut two) = (Station::start(5).await, Station::start(6).await);
    one.want(&two);
    talk(&mut one, &mut two).await;
    two.received.clear();
    one.send((0..1_000).map(|n| n.to_string()));
    one.node.stop().await;
    one.node.stop().await;
    two.receive(1_000).await;
    let gone = |_: &Station, event: &LinkEvent| match event {
        LinkEvent::ChannelClosed { reason, .. } => reason == "end of stream",
        _ => false,
    };
    two.until(gone).await;
}

#[tokio::test]
async fn a_dial_that_reaches_another_peer_fails_and_gives_up_when_told_to() {
    let two = Station::start(8).await;
    let mut config = NodeConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".into()], ..NodeConfig::new([7; 32]) };
    config.links.max_retry_attempts = 2;
    let mut one = Station::with(config).await;
    let stranger = Station::start(9).await.peer();
    let plain = two.address[0].split("/p2p/").next().unwrap().into();
    one.node.order(LinkOrder::Want {
        peer: stranger.clone(),
        hints: vec![plain, "junk".into()],
        for_send: true,
    });
    one.until(|_, event| *event == LinkEvent::GaveUp { peer: stranger.clone() }).await;
    one.node.order(LinkOrder::ClosePeer { peer: stranger.clone() });
    one.node.order(LinkOrder::Want { peer: stranger.clone(), hints: vec![], for_send: true });
    let fault = SendFault::Terminal("IntentionalCloseError".into());
    let refused = LinkEvent::SendFailed { peer: stranger, fault };
    one.until(|_, event| *event == refused).await;
}

#[tokio::test]
async fn an_address_in_use_is_refused_at_once() {
    let one = Station::start(10).await;
    let address = one.address[0].split("/p2p/").next().unwrap().to_owned();
    let config = |listen: &str| NodeConfig { listen: vec![listen.to_owned()], ..NodeConfig::new([11; 32]) };
    assert!(matches!(Node::spawn(config(&address), drop), Err(NetError::Bind { .. })));
    assert!(matches!(Node::spawn(config("nonsense"), drop), Err(NetError::Address { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dialler_is_learned() {
    let (mut one, mut two) = (Station::start(12).await, Station::start(13).await);
    one.want(&two);
    let (peer, address): (PeerId, _) = (one.peer(), one.address[0].clone());
    let two_learns = two.until(
        move |_, event| matches!(event, LinkEvent::HintsLearned { peer: of, hints } if of == &peer && hints.contains(&address)),
    );
    tokio::select! {
        () = two_learns => {}
        () = one.until(|_, _| false) => {}
    }
    assert_ne!(two.channel, Some(ChannelId(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r73_two_nodes_talk_over_quic() {
    let quic = |seed: u8| NodeConfig {
        listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()],
        ..NodeConfig::new([seed; 32])
    };
    let (mut one, mut two) = (Station::with(quic(60)).await, Station::with(quic(61)).await);
    assert!(one.address[0].contains("/quic-v1/p2p/"), "{:?}", one.address);
    one.want(&two);
    talk(&mut one, &mut two).await;
    let (mut one, mut two) = (Station::with(quic(62)).await, Station::with(quic(63)).await);
    one.want(&two);
    two.want(&one);
    talk(&mut one, &mut two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r70_two_nodes_talk_over_websocket() {
    let listening =
        NodeConfig { listen: vec!["/ip4/127.0.0.1/tcp/0/ws".into()], ..NodeConfig::new([66; 32]) };
    let (mut one, mut two) = (Station::with(listening).await, Station::start(67).await);
    assert!(one.address[0].contains("/ws/p2p/"), "{:?}", one.address);
    two.want(&one);
    talk(&mut one, &mut two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r70_what_may_not_be_dialled_is_no_address() {
    let (mut one, far) = (Station::start(68).await, Station::start(69).await.peer());
    let hint = format!("/ip4/203.0.113.9/tcp/9/ws/p2p/{far}");
    one.node.order(LinkOrder::Want { peer: far, hints: vec![hint.as_str().into()], for_send: true });
    let refused = |_: &Station, event: &LinkEvent| match event {
        LinkEvent::SendFailed { fault: SendFault::Transient(text), .. } => {
            text == "NoAddressError: no address that may be dialled"
        }
        _ => false,
    };
    one.until(refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r168_a_node_that_has_stopped_does_nothing_more_and_another_takes_its_place() {
    for transport in ["tcp/0", "udp/0/quic-v1"] {
        let on =
            |seed: u8, listen: String| NodeConfig { listen: vec![listen], ..NodeConfig::new([seed; 32]) };
        let mut one = Station::with(on(64, format!("/ip4/127.0.0.1/{transport}"))).await;
        let mut two = Station::with(on(65, format!("/ip4/127.0.0.1/{transport}"))).await;
        for _ in 0..5 {
            two.want(&one);
            talk(&mut one, &mut two).await;
            let (address, _) = one.address[0].split_once("/p2p/").unwrap();
            let address = address.to_owned();
            one.node.stop().await;
            // Nobody listens to this any more; the one that takes its place knows nothing of it.
            one.want(&two);
            one.node.stop().await;
            one = Station::with(on(64, address)).await;
            assert_eq!(one.channel, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r73_two_nodes_that_reach_only_a_relay_talk_through_it() {
    for transport in ["tcp/0", "udp/0/quic-v1"] {
        let listen = vec![format!("/ip4/127.0.0.1/{transport}")];
        let relay = Relay::start(RelayConfig { seed: [70; 32], listen, public_ip: None }).await.unwrap();
        let relays = relay.addresses().to_vec();
        let serving = tokio::spawn(relay.run());
        let hidden = |seed: u8| NodeConfig { relays: relays.clone(), ..NodeConfig::new([seed; 32]) };
        let (mut one, mut two) = (Station::with(hidden(71)).await, Station::with(hidden(72)).await);
        assert!(one.address[0].contains("/p2p-circuit/p2p/"), "{:?}", one.address);
        one.want(&two);
        talk(&mut one, &mut two).await;
        // A session outlives what the library's relay would allow a circuit: more than 128 KiB.
        two.received.clear();
        let long = "x".repeat(1_000);
        one.send((0..1_000).map(|_| long.clone()));
        two.receive(1_000).await;
        serving.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r69_a_hint_may_be_a_relay_alone() {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    let relay = Relay::start(RelayConfig { seed: [73; 32], listen, public_ip: None }).await.unwrap();
    let relays = relay.addresses().to_vec();
    let serving = tokio::spawn(relay.run());
    let mut one = Station::with(NodeConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
        ..NodeConfig::new([74; 32])
    })
    .await;
    let mut two = Station::with(NodeConfig { relays: relays.clone(), ..NodeConfig::new([75; 32]) }).await;
    let hints = relays.iter().map(|relay| relay.as_str().into()).collect();
    one.node.order(LinkOrder::Want { peer: two.peer(), hints, for_send: false });
    talk(&mut one, &mut two).await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_know_our_protocol_is_spoken_to_by_the_references_name() {
    let reference_only = NodeConfig {
        listen_reference: vec!["/ip4/127.0.0.1/tcp/0".into()],
        protocol: "/another/1",
        ..NodeConfig::new([80; 32])
    };
    let (mut one, mut two) = (Station::with(reference_only).await, Station::start(81).await);
    two.want(&one);
    talk(&mut one, &mut two).await;
    // And again after the channel is lost, now without asking in vain.
    let channel = two.channel.unwrap();
    two.node.order(LinkOrder::CloseChannel { channel, reason: "test".into() });
    two.until(|_, event| matches!(event, LinkEvent::ChannelClosed { .. })).await;
    one.until(|_, event| matches!(event, LinkEvent::ChannelClosed { .. })).await;
    talk(&mut one, &mut two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_listens_for_the_reference_finds_kernels_of_both_kinds() {
    let listen_reference = || vec!["/ip4/127.0.0.1/tcp/0".into()];
    let both = |key| NodeConfig { listen_reference: listen_reference(), ..NodeConfig::new([key; 32]) };
    let (mut one, mut two) = (Station::with(both(82)).await, Station::start(83).await);
    one.want(&two);
    talk(&mut one, &mut two).await;
    let other = NodeConfig { protocol: "/another/1", ..both(84) };
    let mut three = Station::with(other).await;
    one.want(&three);
    talk(&mut one, &mut three).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r72_a_relay_that_is_down_does_not_hinder_the_start() {
    let down = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWJBDqsyHQF2MWiCdU4kdqx4zTsSTLRdShg7Ui6CRWB4uc";
    let with_relay = |seed: u8| NodeConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
        relays: vec![down.into()],
        ..NodeConfig::new([seed; 32])
    };
    let (mut one, mut two) = (Station::with(with_relay(76)).await, Station::with(with_relay(77)).await);
    one.want(&two);
    talk(&mut one, &mut two).await;
}
