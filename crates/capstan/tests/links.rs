//! What `daemon start` says about links holds in the daemon that it starts (03 B.7).

use crate::shell::Shell;
use serde_json::Value as Json;

/// How many addresses a URL issued by a daemon with two of its own carries.
fn hints(limits: &[&str]) -> usize {
    let shell = Shell::new();
    let listen = ["--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
    shell.run(&[&["daemon", "start"], &listen[..], limits].concat()).done();
    let issued = shell.run(&["url", "issue", &shell.launch_example("counter.js")]).done();
    issued.get("url").and_then(Json::as_str).unwrap_or_default().matches(',').count()
}

#[test]
fn a_limit_of_the_links_holds_in_the_daemon() {
    assert_eq!(hints(&[]), 2);
    assert_eq!(hints(&["--link-limit", "maxUrlRelayHints=1"]), 1);
}
