//! Kernels that are killed, wiped and replaced under each other (03 D.7, F): real processes, TCP, SIGKILL.
//!
//! Nothing waits for a fixed time. What must come is looked for through the command line until it is there, at most for
//! a time that follows from the timeouts the daemons run with.

use crate::shell::Shell;
use capstan_host::HostConfig;
use serde_json::{Value as Json, json};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// What a daemon listens on first; afterwards it is told the port it got.
const ANY_PORT: &str = "/ip4/127.0.0.1/tcp/0";
/// Dials fail so often at most once both daemons are up: one runs into the refusal of a classic peer that has just
/// noticed a restart (03 S6), one was sent off before the other daemon listened.
const DIALS_IN_VAIN: u64 = 2;
/// What is left for commits, handshakes and starting the command itself.
const SLACK: Duration = Duration::from_secs(1);
/// How often a process that is waited for is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Which handshake each of two daemons speaks.
type Pair = (&'static str, &'static str);

/// How long a call may take from the moment at which both daemons are up.
fn answer_budget() -> Duration {
    let cap = HostConfig::new("").retry_cap.0;
    Duration::from_millis(cap.saturating_mul(DIALS_IN_VAIN)) + SLACK
}

/// How long what needs a link may take, even if one handshake runs into its time-out first.
fn link_budget() -> Duration {
    Duration::from_millis(HostConfig::new("").handshake_timeout.0) + answer_budget()
}

/// Looks until there is something. Each look runs a command, so this does not spin.
#[track_caller]
fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "{what}: not within {limit:?}, but {seen}"),
        }
    }
}

fn text(json: &Json, key: &str) -> String {
    json.get(key).and_then(Json::as_str).unwrap_or_default().to_owned()
}

fn number(json: &Json, key: &str) -> u64 {
    json.get(key).and_then(Json::as_u64).unwrap_or_default()
}

/// A call that somebody waits for.
struct Waiting(Child);

impl Waiting {
    /// Whether it has neither an answer nor an error.
    fn still(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Its exit code and what it printed, within a time.
    #[track_caller]
    fn ends_within(mut self, limit: Duration) -> (Option<i32>, Json) {
        let deadline = Instant::now() + limit;
        while self.still() {
            assert!(Instant::now() < deadline, "a call was not answered within {limit:?}");
            std::thread::sleep(LOOK_AGAIN);
        }
        let code = self.0.wait().ok().and_then(|status| status.code());
        let printed = self.0.stdout.take().map(std::io::read_to_string);
        let printed = printed.and_then(Result::ok).unwrap_or_default();
        (code, serde_json::from_str(&printed).unwrap_or(Json::String(printed)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon that keeps its port and its handshake over restarts, and what it was at its last start.
struct Kernel {
    shell: Shell,
    handshake: &'static str,
    listen: String,
    attempts: &'static str,
    peer: String,
    life: String,
}

impl Kernel {
    fn started(handshake: &'static str) -> Kernel {
        Kernel::listening_on(handshake, ANY_PORT)
    }

    fn listening_on(handshake: &'static str, listen: &str) -> Kernel {
        let (shell, listen) = (Shell::new(), listen.to_owned());
        let mut kernel =
            Kernel { shell, handshake, listen, attempts: "0", peer: String::new(), life: String::new() };
        kernel.start();
        kernel
    }

    /// One that gives a peer up after `attempts` dials in vain.
    fn giving_up_after(handshake: &'static str, attempts: &'static str) -> Kernel {
        let (shell, listen) = (Shell::new(), ANY_PORT.to_owned());
        let mut kernel =
            Kernel { shell, handshake, listen, attempts, peer: String::new(), life: String::new() };
        kernel.start();
        kernel
    }

    #[track_caller]
    fn start(&mut self) {
        // Failed dials are logged, which is how a test knows that one was made in vain.
        let arguments = ["daemon", "start", "--listen", &self.listen, "--handshake", self.handshake];
        let log = ["--log", "info,libp2p=warn,libp2p_swarm=warn,capstan_net=debug,kernel=debug"];
        let attempts = ["--max-retry-attempts", self.attempts];
        let started = self.shell.run(&[&arguments[..], &attempts, &log].concat()).done();
        let bound = started.pointer("/listen/0").and_then(Json::as_str).unwrap_or_default();
        let bound = bound.split("/p2p/").next().unwrap_or_default();
        assert!(self.listen == ANY_PORT || self.listen == bound, "{started}");
        self.listen = bound.to_owned();
        (self.peer, self.life) = (text(&started, "peerId"), text(&started, "incarnation"));
    }

    /// Killed and started on the same store.
    #[track_caller]
    fn restart(&mut self) {
        self.shell.kill();
        self.start_again();
    }

    /// Started on the same store: the same kernel in the same life.
    #[track_caller]
    fn start_again(&mut self) {
        let before = (self.peer.clone(), self.life.clone());
        self.start();
        assert_eq!((&self.peer, &self.life), (&before.0, &before.1));
    }

    /// Started after everything but the keys was deleted: the same peer in a new life.
    #[track_caller]
    fn start_wiped(&mut self) {
        let purged = self.shell.run(&["daemon", "purge", "--force", "--keep-identity"]).done();
        assert_eq!(purged, json!({"purged": true}));
        let (peer, life) = (self.peer.clone(), self.life.clone());
        self.start();
        assert_eq!(self.peer, peer);
        assert_ne!(self.life, life);
        assert_eq!(self.run(&["vats"]), json!([]));
        assert_eq!(self.run(&["remotes"]), json!([]));
    }

    /// A command that must go well and must not start a daemon.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Json {
        self.shell.run(&[&["--no-spawn"], arguments].concat()).done()
    }

    /// A call that must be answered within the budget.
    #[track_caller]
    fn send(&self, call: &[&str]) -> Json {
        let seconds = answer_budget().as_secs().to_string();
        self.run(&[&["--timeout", &seconds, "send"], call].concat())
    }

    /// A call that is waited for elsewhere.
    #[track_caller]
    fn send_later(&self, call: &[&str]) -> Waiting {
        let seconds = (link_budget() * 10).as_secs().to_string();
        let arguments = [&["--json", "--no-spawn", "--timeout", &seconds, "send"], call].concat();
        let child = self.shell.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        match child {
            Ok(child) => Waiting(child),
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn issue(&self, kref: &str) -> String {
        text(&self.run(&["url", "issue", kref]), "url")
    }

    #[track_caller]
    fn redeem(&self, url: &str) -> String {
        text(&self.run(&["url", "redeem", url]), "kref")
    }

    /// What it knows of a peer.
    #[track_caller]
    fn remote(&self, peer: &str) -> Json {
        let remotes = self.run(&["remotes"]);
        let mut all = remotes.as_array().into_iter().flatten();
        all.find(|remote| text(remote, "peerId") == peer).cloned().unwrap_or_default()
    }

    /// Waits until a peer has acknowledged everything that was sent to it.
    #[track_caller]
    fn has_settled_with(&self, peer: &str) -> Json {
        eventually("everything is acknowledged", link_budget(), || {
            let remote = self.remote(peer);
            let (sent, acked) = (number(&remote, "sent"), number(&remote, "acked"));
            if sent > 0 && sent == acked { Ok(remote) } else { Err(remote.to_string()) }
        })
    }

    /// Checks that the store is sound and that nothing had to be set aside.
    #[track_caller]
    fn is_sound(&self) {
        assert_eq!(self.run(&["dead-letters"]), json!([]));
        let report = self.run(&["fsck"]);
        assert_eq!((report.get("ok"), report.get("problems")), (Some(&json!(true)), Some(&json!([]))));
    }
}

/// Tells what the daemon saw when a test failed.
impl Drop for Kernel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.shell.home().join("daemon.log")).unwrap_or_default();
            let remotes = self.shell.run(&["--no-spawn", "remotes"]).stdout;
            eprintln!("--- {} ({}), remotes {remotes}{log}", self.peer, self.handshake);
        }
    }
}

fn r92_calls_to_a_peer_that_is_down_wait_for_it(pair: Pair) {
    let (ann, mut bob) = (Kernel::started(pair.0), Kernel::started(pair.1));
    let (asker, replier) = (ann.shell.launch_example("chatter.js"), bob.shell.launch_example("chatter.js"));
    let reference = json!({"@url": bob.issue(&replier)}).to_string();
    ann.send(&[&asker, "meet", &reference]);
    assert_eq!(ann.send(&[&asker, "ask", "0"]), json!(1));
    ann.has_settled_with(&bob.peer);

    bob.shell.kill();
    let mut waiting = Vec::new();
    for question in 1..=3 {
        waiting.push((question, ann.send_later(&[&asker, "ask", &question.to_string()])));
        // The vat has asked: only then comes the next, so that their order is known.
        eventually("the question is asked", answer_budget(), || {
            let counts = ann.send(&[&asker, "counts"]);
            if number(&counts, "asked") == question + 1 { Ok(()) } else { Err(counts.to_string()) }
        });
    }
    let remote = ann.remote(&bob.peer);
    assert!(number(&remote, "pending") >= 3, "{remote}");
    assert!(waiting.iter_mut().all(|(_, call)| call.still()));

    bob.start_again();
    for (question, call) in waiting {
        assert_eq!(call.ends_within(answer_budget()), (Some(0), json!(question + 1)));
    }
    let heard = bob.send(&[&replier, "log"]);
    assert_eq!(heard, json!(["question 0", "question 1", "question 2", "question 3"]));
    let answers = ann.send(&[&asker, "log"]);
    assert_eq!(answers, json!(["answer 1", "answer 2", "answer 3", "answer 4"]));
    assert_eq!(number(&ann.remote(&bob.peer), "restartsSeen"), 0);
    ann.is_sound();
    bob.is_sound();
}

fn r93_a_conversation_survives_the_restart_of_either_side(pair: Pair) {
    let (mut client, mut server) = (Kernel::started(pair.0), Kernel::started(pair.1));
    let counter = client.redeem(&server.issue(&server.shell.launch_example("counter.js")));
    assert_eq!(client.send(&[&counter, "bump"]), json!(1));
    server.restart();
    assert_eq!(client.send(&[&counter, "bump"]), json!(2));
    client.restart();
    assert_eq!(client.send(&[&counter, "bump"]), json!(3));
    for (one, other) in [(&client, &server), (&server, &client)] {
        let remote = one.remote(&other.peer);
        assert_eq!(number(&remote, "restartsSeen"), 0, "{remote}");
        assert_eq!(text(&remote, "peerIncarnation"), other.life);
        one.is_sound();
    }
}

/// A sender and a receiver that have talked, and the URL that the sender called.
///
/// The receiver has heard so much that the first frames of another life of the sender would pass for duplicates.
fn acquainted(pair: Pair) -> (Kernel, Kernel, String) {
    let (sender, receiver) = (Kernel::started(pair.0), Kernel::started(pair.1));
    let url = receiver.issue(&receiver.shell.launch_example("counter.js"));
    for count in 1..=4 {
        assert_eq!(sender.send(&[&url, "bump"]), json!(count));
    }
    sender.has_settled_with(&receiver.peer);
    let remote = receiver.has_settled_with(&sender.peer);
    assert!(number(&remote, "received") > 4, "{remote}");
    assert_eq!((number(&remote, "restartsSeen"), text(&remote, "peerIncarnation")), (0, sender.life.clone()));
    (sender, receiver, url)
}

/// The wiped sender calls, is heard within the budget, and its restart is seen exactly once.
#[track_caller]
fn is_heard_in_its_new_life(sender: &Kernel, receiver: &Kernel, url: &str) {
    assert_eq!(sender.send(&[url, "bump"]), json!(5));
    let remote = receiver.remote(&sender.peer);
    assert_eq!((number(&remote, "restartsSeen"), text(&remote, "peerIncarnation")), (1, sender.life.clone()));
    assert_eq!(sender.send(&[url, "bump"]), json!(6));
    let remote = sender.has_settled_with(&receiver.peer);
    // It remembers nobody, so whom it meets has never restarted.
    assert_eq!(
        (number(&remote, "restartsSeen"), text(&remote, "peerIncarnation")),
        (0, receiver.life.clone())
    );
    assert_eq!(number(&receiver.has_settled_with(&sender.peer), "restartsSeen"), 1);
    sender.is_sound();
    receiver.is_sound();
}

fn r136_a_wiped_sender_is_heard_by_a_restarted_receiver(pair: Pair) {
    let (mut sender, mut receiver, url) = acquainted(pair);
    let before = receiver.remote(&sender.peer);
    // The sender goes first: if it lived, the receiver would note its old life again.
    sender.shell.kill();
    receiver.restart();
    // All it knows now is what it stored, and that is what a fresh sender was once deaf to.
    let after = receiver.remote(&sender.peer);
    for key in ["received", "restartsSeen", "peerIncarnation"] {
        assert_eq!(after.get(key), before.get(key), "{key}");
    }
    sender.start_wiped();
    is_heard_in_its_new_life(&sender, &receiver, &url);
}

fn r137_a_wiped_sender_is_heard_by_a_receiver_that_stayed(pair: Pair) {
    let (mut sender, receiver, url) = acquainted(pair);
    sender.shell.kill();
    sender.start_wiped();
    is_heard_in_its_new_life(&sender, &receiver, &url);
}

/// The redemption was under way when its peer came back from a backup, in another life: it is asked again there, and
/// who wanted to call by URL does not learn of the restart.
fn r121_a_url_is_asked_again_of_a_peer_that_was_restored(pair: Pair) {
    let (sender, mut receiver, url) = acquainted(pair);
    let backup = sender.shell.home().join("backup-of-the-receiver");
    let backup = backup.to_string_lossy().into_owned();
    receiver.run(&["backup", &backup]);
    receiver.shell.kill();
    let call = sender.send_later(&[&url, "bump"]);
    eventually("the redemption is under way", answer_budget(), || {
        let remote = sender.remote(&receiver.peer);
        if number(&remote, "pending") > 0 { Ok(()) } else { Err(remote.to_string()) }
    });

    receiver.shell.run(&["daemon", "purge", "--force"]).done();
    receiver.run(&["restore", &backup]);
    let life = receiver.life.clone();
    receiver.start();
    assert_ne!(receiver.life, life);
    assert_eq!(call.ends_within(link_budget()), (Some(0), json!(5)));
    assert_eq!(number(&sender.remote(&receiver.peer), "restartsSeen"), 1);
    sender.is_sound();
    receiver.is_sound();
}

/// With a limit set, the call to a peer that never returns ends when the limit is reached.
fn r138_a_call_to_a_replaced_peer_fails_when_the_peer_is_given_up(pair: Pair) {
    let (ann, bob) = (Kernel::giving_up_after(pair.0, "5"), Kernel::started(pair.1));
    let counter = ann.redeem(&bob.issue(&bob.shell.launch_example("counter.js")));
    assert_eq!(ann.send(&[&counter, "bump"]), json!(1));
    ann.has_settled_with(&bob.peer);
    bob.shell.kill();
    let old = ann.send_later(&[&counter, "bump"]);
    let eve = Kernel::listening_on(pair.1, &bob.listen);
    let (code, printed) = old.ends_within(link_budget());
    let error = printed.pointer("/error/code").and_then(Json::as_str);
    assert_eq!((code, error), (Some(1), Some("CONNECTION_LOST")), "{printed}");
    let fresh = eve.issue(&eve.shell.launch_example("counter.js"));
    assert_eq!(ann.send(&[&fresh, "bump"]), json!(1));
    ann.is_sound();
    eve.is_sound();
}

/// Without a limit, which is the default, no peer is given up by itself: the call is neither lost nor misdelivered to
/// the kernel that took the port, and it ends with `CONNECTION_LOST` when the user gives the peer up.
fn r138_a_call_to_a_replaced_peer_waits_until_the_peer_is_given_up(pair: Pair, verb: &str) {
    let (ann, bob) = (Kernel::started(pair.0), Kernel::started(pair.1));
    let counter = ann.redeem(&bob.issue(&bob.shell.launch_example("counter.js")));
    assert_eq!(ann.send(&[&counter, "bump"]), json!(1));
    ann.has_settled_with(&bob.peer);
    bob.shell.kill();
    let mut old = ann.send_later(&[&counter, "bump"]);
    eventually("the call is under way", answer_budget(), || {
        let remote = ann.remote(&bob.peer);
        if number(&remote, "pending") > 0 { Ok(()) } else { Err(remote.to_string()) }
    });

    let eve = Kernel::listening_on(pair.1, &bob.listen);
    assert_ne!(eve.peer, bob.peer);
    let dials = dials_in_vain(&ann, &bob.peer);
    eventually("the old peer is dialled where the new one listens", link_budget(), || {
        // One may have begun before the new one listened.
        let more = dials_in_vain(&ann, &bob.peer);
        if more >= dials + 2 { Ok(()) } else { Err(format!("{more} dials after {dials}")) }
    });
    let fresh = eve.issue(&eve.shell.launch_example("counter.js"));
    assert_eq!(ann.send(&[&fresh, "bump"]), json!(1));
    assert!(old.still());
    let remote = ann.remote(&bob.peer);
    assert!(number(&remote, "pending") > 0 && number(&remote, "restartsSeen") == 0, "{remote}");

    assert_eq!(ann.run(&["peer", verb, &bob.peer]), json!({"ok": true}));
    let (code, printed) = old.ends_within(answer_budget());
    let error = printed.pointer("/error/code").and_then(Json::as_str);
    assert_eq!((code, error), (Some(1), Some("CONNECTION_LOST")), "{printed}");
    assert_eq!(ann.send(&[&fresh, "bump"]), json!(2));
    ann.is_sound();
    eve.is_sound();
}

/// How many dials to a peer have failed.
fn dials_in_vain(kernel: &Kernel, peer: &str) -> usize {
    let log = kernel.shell.raw(&["daemon", "logs"]).stdout;
    log.lines().filter(|line| line.contains("dial failed") && line.contains(peer)).count()
}

/// The scenarios between two session kernels, between two classic ones, and between one of each.
macro_rules! pairs {
    ($($name:ident: $run:expr;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn between_session_kernels() {
                ($run)(("session", "session"));
            }

            #[test]
            fn between_classic_kernels() {
                ($run)(("classic", "classic"));
            }

            #[test]
            fn from_session_to_classic() {
                ($run)(("session", "classic"));
            }

            #[test]
            fn from_classic_to_session() {
                ($run)(("classic", "session"));
            }
        })*
    };
}

pairs! {
    r92: r92_calls_to_a_peer_that_is_down_wait_for_it;
    r93: r93_a_conversation_survives_the_restart_of_either_side;
    r136: r136_a_wiped_sender_is_heard_by_a_restarted_receiver;
    r137: r137_a_wiped_sender_is_heard_by_a_receiver_that_stayed;
    r121: r121_a_url_is_asked_again_of_a_peer_that_was_restored;
    r138: r138_a_call_to_a_replaced_peer_fails_when_the_peer_is_given_up;
    r138_forget: |pair| r138_a_call_to_a_replaced_peer_waits_until_the_peer_is_given_up(pair, "forget");
    r138_close: |pair| r138_a_call_to_a_replaced_peer_waits_until_the_peer_is_given_up(pair, "close");
}
