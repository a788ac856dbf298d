//! A host and a kernel of the reference's kind (03 D.6): calls, objects and promises both ways, and restarts of either.

use crate::foreign::Foreign;
use crate::support::{call, launch, methargs, within};
use capstan_host::{Host, HostConfig};
use capstan_kernel::host_op::HostOp;
use capstan_model::id::ObjectId;
use serde_json::json;
use std::path::Path;
use tempfile::TempDir;

/// Holds what it is given, calls it, and gives promises away.
const DESK: &str = "import { E, Far } from '@endo/far';
    export const buildRootObject = () => {
        let held, settle;
        return Far('desk', {
            hold(thing) { held = thing; return 'held'; },
            ask(n) { return E(held).reply(n); },
            async after(promise) { return (await promise) + 1; },
            later() { return [new Promise(resolve => { settle = resolve; })]; },
            settle(value) { settle(value); },
            reply(n) { return n + 1; },
        });
    };";

struct Meeting {
    home: TempDir,
    host: Host,
    root: ObjectId,
    address: String,
    peer: Foreign,
    url: String,
    /// How the peer addresses the root.
    target: String,
}

async fn start(home: &Path, listen: &str, reset_storage: bool) -> Host {
    let config = HostConfig {
        workers: 2,
        listen: Vec::new(),
        listen_reference: vec![listen.to_owned()],
        reset_storage,
        ..HostConfig::new(home)
    };
    within(Host::start(config)).await.unwrap()
}

/// The peer has redeemed a URL of the desk, and the desk holds an object of the peer's.
async fn meeting(seed: u8) -> Meeting {
    let home = tempfile::tempdir().unwrap();
    let host = start(home.path(), "/ip4/127.0.0.1/tcp/0", false).await;
    let root = launch(&host, DESK).await.root;
    let url = within(host.issue_url(root)).await.unwrap();
    let address = host.listen()[0].split("/p2p/").next().unwrap().to_owned();
    let mut peer = Foreign::start(seed, "life-1").await;
    assert!(peer.dial(&address).await);
    let target = peer.redeem(&url, "1").await;
    peer.call(&target, r##"#["hold",["$0.Alleged: thing"]]"##, &["ro+1"], "rp+1").await;
    assert_eq!(peer.settled("rp-1").await, r##"#"held""##);
    Meeting { home, host, root, address, peer, url, target }
}

impl Meeting {
    /// The desk asks the peer's object, which answers.
    async fn ask(&mut self, n: u64) {
        let (host, root) = (self.host.clone(), self.root);
        let asked = tokio::spawn(async move { call(&host, root, "ask", &format!("[{n}]"), &[]).await });
        self.answer(n).await;
        assert_eq!(within(asked).await.unwrap(), format!("#{}", n + 1));
    }

    async fn answer(&mut self, n: u64) {
        let (method, params) = self.peer.next().await.unwrap();
        assert_eq!((method.as_str(), &params[0], &params[1]), ("deliver", &json!("message"), &json!("ro-1")));
        assert_eq!(params[2]["methargs"], json!({"body": format!("#[\"reply\",[{n}]]"), "slots": []}));
        let result = params[2]["result"].as_str().unwrap().replace('+', "-");
        self.peer.fulfil(&result, &format!("#{}", n + 1)).await;
    }

    /// The peer calls the desk.
    async fn reply(&mut self, number: u64) {
        let target = self.target.clone();
        self.peer.call(&target, r##"#["reply",[41]]"##, &[], &format!("rp+{number}")).await;
        assert_eq!(self.peer.settled(&format!("rp-{number}")).await, "#42");
    }

    async fn restart(&mut self, reset_storage: bool) {
        within(self.host.stop()).await;
        self.host = start(self.home.path(), &self.address, reset_storage).await;
    }

    /// Ends with a sound store in which nothing was set aside.
    async fn end(self) {
        assert_eq!(within(self.host.query("SELECT * FROM dead_letter")).await.unwrap().len(), 0);
        assert!(within(self.host.fsck()).await.unwrap().problems.is_empty());
        within(self.host.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_kernel_and_a_host_call_each_other_and_pass_promises() {
    let mut meeting = meeting(91).await;
    meeting.reply(2).await;
    meeting.ask(1).await;
    // A promise of the peer's, settled after the call that carried it.
    let target = meeting.target.clone();
    meeting.peer.call(&target, r##"#["after",["&0"]]"##, &["rp+3"], "rp+4").await;
    meeting.peer.fulfil("rp+3", "#6").await;
    assert_eq!(meeting.peer.settled("rp-4").await, "#7");
    // A promise of the desk's: the one who was given it is told.
    meeting.peer.call(&target, r##"#["later",[]]"##, &[], "rp+5").await;
    let (_, params) = meeting.peer.next().await.unwrap();
    let given = params[1][0][2].clone();
    assert_eq!(given["body"], json!("#[\"&0\"]"));
    let promise = given["slots"][0].as_str().unwrap().to_owned();
    assert!(promise.starts_with("rp+"), "{promise}");
    let (host, root) = (meeting.host.clone(), meeting.root);
    assert_eq!(call(&host, root, "settle", "[8]", &[]).await, r##"#"#undefined""##);
    assert_eq!(meeting.peer.settled(&promise).await, "#8");
    meeting.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r93_a_reference_kernel_and_a_host_go_on_after_either_restarts_with_its_store() {
    let mut meeting = meeting(92).await;
    // The host: the peer sends again what was not acknowledged, and drops what it has seen.
    meeting.restart(false).await;
    meeting.peer.restart();
    let (address, target) = (meeting.address.clone(), meeting.target.clone());
    meeting.peer.call(&target, r##"#["reply",[1]]"##, &[], "rp+2").await;
    assert!(meeting.peer.dial(&address).await);
    assert_eq!(meeting.peer.settled("rp-2").await, "#2");
    // The peer, while the host has something for it: the host dials, and falls back to the reference's name.
    let hint = format!("{}/p2p/{}", meeting.peer.address, meeting.peer.name());
    let op = HostOp::PeerHint { peer: meeting.peer.name(), hints: vec![hint.into()] };
    within(meeting.host.request(op)).await.unwrap();
    meeting.peer.call(&target, r##"#["hold",["$0.Alleged: thing"]]"##, &["ro+1"], "rp+3").await;
    assert_eq!(meeting.peer.settled("rp-3").await, r##"#"held""##);
    meeting.peer.restart();
    let (host, root) = (meeting.host.clone(), meeting.root);
    let asked = tokio::spawn(async move { call(&host, root, "ask", "[5]", &[]).await });
    assert!(meeting.peer.accept().await);
    meeting.answer(5).await;
    assert_eq!(within(asked).await.unwrap(), "#6");
    meeting.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r131_a_wiped_reference_kernel_is_refused_once_and_then_heard() {
    let mut meeting = meeting(93).await;
    let (host, root) = (meeting.host.clone(), meeting.root);
    let asked =
        tokio::spawn(
            async move { within(host.send(root.into(), methargs("ask", "[1]", &[]))).await.unwrap() },
        );
    meeting.peer.next().await.unwrap();
    meeting.peer.wipe("life-2");
    // Its first numbers and its first reply key are those of the life before.
    let address = meeting.address.clone();
    assert!(meeting.peer.dial(&address).await, "the peer sees no change");
    let url = meeting.url.clone();
    meeting.peer.send("redeemURL", json!([url, "1"])).await;
    assert_eq!(meeting.peer.next().await, None, "the channel is closed without a word");
    let settled = asked.await.unwrap();
    assert!(
        settled.rejected && settled.value.body.contains("[KERNEL:PEER_RESTARTED]"),
        "{:?}",
        settled.value
    );
    assert!(meeting.peer.dial(&address).await);
    // Of the question's result, a promise that only the life before was shown, it hears nothing.
    meeting.target = meeting.peer.redeemed("1").await;
    meeting.reply(1).await;
    let target = meeting.target.clone();
    meeting.peer.call(&target, r##"#["hold",["$0.Alleged: thing"]]"##, &["ro+1"], "rp+2").await;
    assert_eq!(meeting.peer.settled("rp-2").await, r##"#"held""##);
    meeting.ask(3).await;
    meeting.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r136_a_wiped_reference_kernel_is_heard_by_a_host_that_has_restarted() {
    let mut meeting = meeting(96).await;
    for number in 2..5 {
        meeting.reply(number).await;
    }
    meeting.restart(false).await;
    meeting.peer.wipe("life-2");
    let address = meeting.address.clone();
    assert!(meeting.peer.dial(&address).await);
    assert_eq!(meeting.peer.next().await, None, "refused, for what the store remembers");
    assert!(meeting.peer.dial(&address).await);
    let url = meeting.url.clone();
    meeting.target = meeting.peer.redeem(&url, "1").await;
    meeting.reply(1).await;
    meeting.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r137_a_reference_kernel_refuses_a_wiped_host_once_and_then_hears_it() {
    let mut meeting = meeting(94).await;
    meeting.restart(true).await;
    meeting.peer.restart();
    let address = meeting.address.clone();
    assert!(!meeting.peer.dial(&address).await, "another incarnation");
    assert!(meeting.peer.dial(&address).await, "the same as a moment before");
    meeting.root = launch(&meeting.host, DESK).await.root;
    meeting.url = within(meeting.host.issue_url(meeting.root)).await.unwrap();
    let url = meeting.url.clone();
    meeting.target = meeting.peer.redeem(&url, "1").await;
    meeting.reply(1).await;
    meeting.end().await;
}

/// The reference writes what it drops from its own point of view: to us that names things of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r158_r159_what_a_reference_kernel_drops_by_the_wrong_name_is_not_taken_from_anybody() {
    let mut meeting = meeting(95).await;
    let held = async |host: &Host| {
        let rows =
            within(host.query("SELECT * FROM clist WHERE kref LIKE 'ko%' ORDER BY 1, 2, 3")).await.unwrap();
        format!("{rows:?}")
    };
    let before = held(&meeting.host).await;
    for verb in ["dropExports", "retireExports"] {
        // Its name for our desk, which is ours for its thing; and one of which nobody ever heard.
        for name in ["ro+1", "ro+7"] {
            meeting.peer.send("deliver", json!([verb, [name]])).await;
        }
    }
    meeting.reply(2).await;
    assert_eq!(held(&meeting.host).await, before);
    meeting.ask(1).await;
    meeting.end().await;
}
