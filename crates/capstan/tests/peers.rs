//! Two daemons that talk.

use crate::shell::Shell;
use serde_json::{Value as Json, json};

const NOBODY: &str = "12D3KooWLJA15FRxDKc7KFSeSGYMDxD19eAZ5AvnK6cb6B2B45kH";

fn text(json: &Json, key: &str) -> String {
    json.get(key).and_then(Json::as_str).unwrap_or_default().to_owned()
}

fn url_of(shell: &Shell, kref: &str) -> String {
    text(&shell.run(&["url", "issue", kref]).done(), "url")
}

#[test]
fn an_object_of_another_kernel_is_called_by_its_url() {
    let (ann, bob) = (Shell::new(), Shell::new());
    let counter = bob.launch_example("counter.js");
    let url = url_of(&bob, &counter);
    let bobs = bob.run(&["daemon", "status"]).done();
    let peer = text(&bobs, "peerId");
    assert!(url.starts_with("ocap:") && url.contains(&format!("@{peer},/ip4/127.0.0.1/tcp/")), "{url}");
    assert_eq!(ann.run(&["send", &url, "bump", "3"]).done(), json!(3));
    let kref = text(&ann.run(&["url", "redeem", &url]).done(), "kref");
    assert_eq!(ann.run(&["send", &kref, "bump", "4"]).done(), json!(7));

    let chatter = ann.launch_example("chatter.js");
    let echo = bob.launch_example("chatter.js");
    let reference = json!({"@url": url_of(&bob, &echo)}).to_string();
    ann.run(&["send", &chatter, "meet", &reference]).done();
    assert_eq!(ann.run(&["send", &chatter, "ask", "41"]).done(), json!(42));

    let remotes = ann.run(&["remotes"]).done();
    let keys: Vec<_> =
        remotes.pointer("/0").and_then(Json::as_object).into_iter().flat_map(|r| r.keys()).collect();
    let expected = [
        "remoteId",
        "peerId",
        "state",
        "peerIncarnation",
        "restartsSeen",
        "sent",
        "acked",
        "received",
        "pending",
        "hints",
    ];
    assert_eq!(keys, expected);
    assert_eq!(remotes.pointer("/0/peerId"), Some(&json!(peer)));
    assert_eq!(remotes.pointer("/0/state"), Some(&json!("connected")));
    assert_eq!(remotes.pointer("/0/peerIncarnation"), bobs.get("incarnation"));
    assert_eq!(remotes.pointer("/0/restartsSeen"), Some(&json!(0)));
    for shell in [&ann, &bob] {
        assert_eq!(shell.run(&["dead-letters"]).done(), json!([]));
        let report = shell.run(&["fsck"]).done();
        assert_eq!((report.get("ok"), report.get("problems")), (Some(&json!(true)), Some(&json!([]))));
    }
}

#[test]
fn a_url_outlives_a_restart_of_its_kernel_but_not_its_grant() {
    let (ann, bob) = (Shell::new(), Shell::new());
    let counter = bob.launch_example("counter.js");
    let url = url_of(&bob, &counter);
    bob.kill();
    bob.run(&["daemon", "start"]).done();
    assert_eq!(ann.run(&["send", &url, "bump"]).done(), json!(1));
    let grants = bob.run(&["url", "list"]).done();
    assert_eq!(grants.pointer("/0/kref"), Some(&json!(counter)));
    let secret = url.split(['@', ':']).nth(1).unwrap_or_default();
    assert!(secret.len() > 32 && !grants.to_string().contains(secret), "{grants}");
    let grant = grants.pointer("/0/grant").and_then(Json::as_str).unwrap_or_default();
    assert_eq!(bob.run(&["url", "revoke", grant]).done(), json!({"ok": true}));
    bob.run(&["url", "redeem", &url]).failed(1, "URL_UNKNOWN");
    ann.run(&["url", "redeem", &url]).failed(1, "URL_UNKNOWN");
    ann.run(&["url", "revoke", "g99"]).failed(1, "URL_UNKNOWN");
    ann.run(&["url", "issue", "ko999"]).failed(1, "OBJECT_DELETED");
}

#[test]
fn a_peer_is_closed_reconnected_and_forgotten() {
    let (ann, bob) = (Shell::new(), Shell::new());
    let counter = bob.launch_example("counter.js");
    let url = url_of(&bob, &counter);
    let kref = text(&ann.run(&["url", "redeem", &url]).done(), "kref");
    let peer = text(&bob.run(&["daemon", "status"]).done(), "peerId");
    assert_eq!(ann.run(&["peer", "close", &peer]).done(), json!({"ok": true}));
    assert_eq!(ann.run(&["remotes"]).done().pointer("/0/state"), Some(&json!("closed")));
    let hint = url.split(',').nth(1).unwrap_or_default();
    assert_eq!(ann.run(&["peer", "reconnect", &peer, "--hint", hint]).done(), json!({"ok": true}));
    assert_eq!(ann.run(&["send", &url, "bump"]).done(), json!(1));
    assert_eq!(ann.run(&["peer", "forget", &peer]).done(), json!({"ok": true}));
    assert_eq!(ann.run(&["remotes"]).done(), json!([]));
    ann.run(&["send", &kref, "bump"]).failed(1, "OBJECT_DELETED");
    assert_eq!(ann.run(&["send", &url, "bump"]).done(), json!(2));
    for verb in ["close", "reconnect", "forget"] {
        ann.run(&["peer", verb, NOBODY]).failed(1, "PEER_NOT_FOUND");
    }
}

/// Puts the files of one directory into another, in place of what is there.
fn put(from: &std::path::Path, to: &std::path::Path) -> anyhow::Result<()> {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[test]
fn r175_a_home_that_was_copied_and_put_back_is_noticed() -> anyhow::Result<()> {
    let (ann, bob) = (Shell::new(), Shell::new());
    let counter = bob.launch_example("counter.js");
    assert_eq!(ann.run(&["send", &url_of(&bob, &counter), "bump"]).done(), json!(1));
    bob.run(&["daemon", "stop"]).done();
    let aside = tempfile::tempdir()?;
    let copy = aside.path().join("copy");
    put(&bob.home(), &copy)?;
    for n in 2..=3 {
        assert_eq!(ann.run(&["send", &url_of(&bob, &counter), "bump"]).done(), json!(n));
    }
    let before = bob.run(&["status"]).done();
    assert_eq!(before.get("alarms"), Some(&json!([])));
    bob.run(&["daemon", "stop"]).done();
    put(&copy, &bob.home())?;
    // Its peer knows more of it than it does itself: it goes on as another, and its calls are its own.
    assert_eq!(ann.run(&["send", &url_of(&bob, &counter), "bump"]).done(), json!(2));
    let after = bob.run(&["status"]).done();
    assert_eq!(before.get("peerId"), after.get("peerId"));
    assert_ne!(before.get("incarnation"), after.get("incarnation"));
    let alarms = after.get("alarms").and_then(Json::as_array).cloned().unwrap_or_default();
    assert!(alarms.iter().any(|alarm| alarm.to_string().contains("an older backup")), "{after}");
    assert_eq!(ann.run(&["remotes"]).done().pointer("/0/restartsSeen"), Some(&json!(1)));
    Ok(())
}

#[test]
fn a_peer_that_is_not_there_times_out() {
    let ann = Shell::new();
    ann.run(&["daemon", "start"]).done();
    let url = format!("ocap:z2uFdqT7F9Yx1CbJgkBAu7wKZ6Hh8Vv3rQ9kN5mPsLx@{NOBODY},/ip4/127.0.0.1/tcp/9");
    ann.run(&["send", &url, "bump", "--timeout", "0.5"]).failed(4, "TIMEOUT");
}

/// A relay that runs until it is dropped.
struct Relay(std::process::Child);

impl Relay {
    fn start(shell: &Shell) -> (Relay, Json) {
        let mut command = shell.command(&["--json", "relay", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        let mut child = match command.stdout(std::process::Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => panic!("{error}"),
        };
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line);
            assert!(read.is_ok());
        }
        let said = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        (Relay(child), said)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn r73_two_daemons_meet_through_a_relay_that_keeps_its_name() {
    let (ann, bob, third) = (Shell::new(), Shell::new(), Shell::new());
    let (relay, said) = Relay::start(&third);
    let address = said.pointer("/listen/0").and_then(Json::as_str).unwrap_or_default().to_owned();
    assert!(address.ends_with(&format!("/p2p/{}", text(&said, "peerId"))), "{said}");
    bob.run(&["daemon", "start", "--relay", &address]).done();
    ann.run(&["daemon", "start", "--relay", &address]).done();
    let counter = bob.launch_example("counter.js");
    // Of the URL only the way through the relay is kept.
    while !bob.run(&["daemon", "status"]).done().to_string().contains("/p2p-circuit") {}
    let url = url_of(&bob, &counter);
    let (before, hints) = url.split_once(',').unwrap_or_default();
    assert_eq!(hints.split(',').next_back(), Some(address.as_str()), "{url}");
    let url = format!("{before},{address}");
    assert_eq!(ann.run(&["send", &url, "bump", "3"]).done(), json!(3));
    drop(relay);
    let (_relay, again) = Relay::start(&third);
    assert_eq!(again.get("peerId"), said.get("peerId"));
    assert_eq!(ann.run(&["send", &url, "bump", "4"]).done(), json!(7));
}

#[test]
fn kernels_meet_where_one_listens_for_the_reference_only() {
    let (ann, bob) = (Shell::new(), Shell::new());
    let started = bob.run(&["daemon", "start", "--listen-reference", "/ip4/127.0.0.1/tcp/0"]).done();
    let listen = started.pointer("/listen").and_then(Json::as_array).map_or(0, Vec::len);
    assert_eq!(listen, 3, "{started}");
    let counter = bob.launch_example("counter.js");
    let url = url_of(&bob, &counter);
    let (before, hints) = url.split_once(',').unwrap_or_default();
    let url = format!("{before},{}", hints.split(',').next().unwrap_or_default());
    assert_eq!(ann.run(&["send", &url, "bump", "3"]).done(), json!(3));
}

#[test]
fn bad_addresses_of_relays_are_refused() {
    let shell = Shell::new();
    shell.run(&["daemon", "start", "--relay", "/ip4/127.0.0.1/tcp/9"]).failed(2, "USAGE");
    shell.run(&["relay", "--listen", "nonsense"]).failed(2, "USAGE");
    shell.run(&["relay", "--listen", "/ip4/203.0.113.1/tcp/9"]).failed(1, "IO");
}
