//! The methods of the control socket, and what an operator does with them.

use crate::shell::Shell;
use crate::socket::{connect, error_code, hear, say};
use serde_json::{Value as Json, json};

/// Asks over a connection of its own and returns the whole response.
fn ask(shell: &Shell, method: &str, params: &Json) -> anyhow::Result<Json> {
    let mut line = connect(shell)?;
    say(&mut line, &format!("{}\n", json!({"id": 1, "method": method, "params": params})))?;
    hear(&mut line)
}

/// The result of a request that goes well.
fn result(shell: &Shell, method: &str, params: &Json) -> anyhow::Result<Json> {
    let response = ask(shell, method, params)?;
    response.get("result").cloned().ok_or_else(|| anyhow::anyhow!("{method} {params}: {response}"))
}

fn text<'j>(json: &'j Json, pointer: &str) -> &'j str {
    json.pointer(pointer).and_then(Json::as_str).unwrap_or_default()
}

fn example(name: &str) -> String {
    format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A configuration of counters, as RPC takes it.
fn counters(names: &[&str]) -> Json {
    let vats: serde_json::Map<String, Json> =
        names.iter().map(|name| ((*name).to_owned(), json!({"sourceSpec": example("counter.js")}))).collect();
    json!({"bootstrap": names.first(), "vats": vats})
}

fn launch(config: Json) -> Json {
    json!({"config": config, "bootstrapOptional": true})
}

#[test]
fn k203_params_that_do_not_fit_are_refused_with_their_number() -> anyhow::Result<()> {
    let shell = Shell::new();
    shell.run(&["daemon", "start"]).done();
    for (method, bad) in [
        ("getStatus", json!({"x": 1})),
        ("getStatus", json!([1])),
        ("launchSubcluster", json!([])),
        ("launchSubcluster", json!({})),
        ("launchSubcluster", json!({"config": {"bootstrap": "a", "vats": {}}})),
        (
            "launchSubcluster",
            json!({"config": {"bootstrap": "a", "vats": {"a": {"sourceSpec": "a.js"}}, "x": 1}}),
        ),
        (
            "launchSubcluster",
            json!({"config": {"bootstrap": "a", "vats": {"a": {"sourceSpec": "a.js", "x": 1}}}}),
        ),
        (
            "launchSubcluster",
            json!({"config": {"bootstrap": "a", "vats": {"a": {"sourceSpec": "a.js"}}, "io": null}}),
        ),
        ("terminateSubcluster", json!({"id": "v1"})),
        ("queueMessage", json!([])),
        ("queueMessage", json!({"target": "ko1"})),
        ("queueMessage", json!(["ko1", "m"])),
        ("queueMessage", json!(["ko1", "m", {}])),
        ("queueMessage", json!(["v1", "m", []])),
        ("pingVat", json!({})),
        ("restartVat", json!({"id": "s1"})),
        ("terminateVat", json!({"id": 1})),
        ("terminateAllVats", json!(["v1"])),
        ("collectGarbage", json!([0])),
        ("clearState", json!({"force": true})),
        ("revoke", json!({"kref": "o+1"})),
        ("isRevoked", json!(["ko1"])),
        ("executeDBQuery", json!({"query": "SELECT 1"})),
        ("issueOcapURL", json!({"kref": 3})),
        ("redeemOcapURL", json!({"url": "http://example.org"})),
        ("initRemoteComms", json!({"maxRetryAttempts": -1})),
        ("initRemoteComms", json!({"maxUrlRelayHints": 0})),
        ("initRemoteComms", json!({"mnemonic": "abandon"})),
        ("registerLocationHints", json!({"hints": []})),
        ("getSystemSubclusterRoot", json!({})),
    ] {
        let response = ask(&shell, method, &bad)?;
        assert_eq!(error_code(&response), Some(-32602), "{method} {bad}: {response}");
        assert!(!text(&response, "/error/data/code").is_empty(), "{response}");
    }
    for (method, params, code, name, message) in [
        (
            "terminateSubcluster",
            json!({"id": "s9"}),
            "SUBCLUSTER_NOT_FOUND",
            "SubclusterNotFoundError",
            "Subcluster does not exist.",
        ),
        ("pingVat", json!({"id": "v9"}), "VAT_NOT_FOUND", "VatNotFoundError", "Vat does not exist."),
        ("restartVat", json!({"id": "v9"}), "VAT_NOT_FOUND", "VatNotFoundError", "Vat does not exist."),
        ("terminateVat", json!({"id": "v9"}), "VAT_NOT_FOUND", "VatNotFoundError", "Vat does not exist."),
        ("revoke", json!({"kref": "kp9"}), "BAD_REFERENCE", "", "cannot revoke promise kp9"),
        ("revoke", json!({"kref": "ko9"}), "OBJECT_DELETED", "", ""),
        ("issueOcapURL", json!({"kref": "ko9"}), "OBJECT_DELETED", "", ""),
        (
            "getSystemSubclusterRoot",
            json!({"name": "x"}),
            "SUBCLUSTER_NOT_FOUND",
            "",
            "System subcluster \"x\" not found",
        ),
        ("executeDBQuery", json!({"sql": "DELETE FROM vat"}), "QUERY_REFUSED", "", ""),
        (
            "initRemoteComms",
            json!({"maxQueue": 3}),
            "USAGE",
            "",
            "remote communications are running; maxQueue is chosen when the daemon starts",
        ),
    ] {
        let response = ask(&shell, method, &params)?;
        assert_eq!(error_code(&response), Some(-32603), "{method} {params}: {response}");
        let told = (text(&response, "/error/data/code"), text(&response, "/error/data/name"));
        assert_eq!(told, (code, name), "{method} {params}: {response}");
        assert!(message.is_empty() || text(&response, "/error/message") == message, "{response}");
    }
    Ok(())
}

#[test]
fn k201_k203_k204_methods_give_the_results_that_clients_rely_on() -> anyhow::Result<()> {
    let shell = Shell::new();
    let started = shell.run(&["daemon", "start"]).done();
    let config = counters(&["main", "other"]);
    let launched = result(&shell, "launchSubcluster", &launch(config.clone()))?;
    let (root, subcluster) =
        (text(&launched, "/rootKref").to_owned(), text(&launched, "/subclusterId").to_owned());
    assert_eq!(launched.get("bootstrapResult"), Some(&Json::Null), "{launched}");

    let status = result(&shell, "getStatus", &json!([]))?;
    let vat = json!({"id": "v1", "config": config.pointer("/vats/main"), "subclusterId": subcluster});
    for (key, value) in vat.as_object().into_iter().flatten() {
        assert_eq!(status.pointer(&format!("/vats/0/{key}")), Some(value), "{status}");
    }
    let view = json!({"id": "s1", "config": config, "vats": {"main": "v1", "other": "v2"}});
    for (key, value) in view.as_object().into_iter().flatten() {
        assert_eq!(status.pointer(&format!("/subclusters/0/{key}")), Some(value), "{status}");
    }
    let comms = json!({"state": "connected", "peerId": started.get("peerId"), "listenAddresses": started.get("listen")});
    assert_eq!(status.get("remoteComms"), Some(&comms));

    let kref = json!({"kref": root});
    assert_eq!(result(&shell, "pingVat", &json!({"id": "v1"}))?, json!("pong"));
    assert_eq!(result(&shell, "restartVat", &json!({"id": "v1"}))?, Json::Null);
    assert_eq!(result(&shell, "isRevoked", &kref)?, json!(false));
    let url = result(&shell, "issueOcapURL", &kref)?;
    assert_eq!(result(&shell, "redeemOcapURL", &json!({"url": url}))?, json!(root));
    assert_eq!(result(&shell, "executeDBQuery", &json!({"sql": "SELECT 1 AS n"}))?, json!([{"n": "1"}]));
    assert_eq!(result(&shell, "executeDBQuery", &json!({"sql": "SELECT * FROM vat WHERE 0"}))?, json!([]));
    assert_eq!(result(&shell, "collectGarbage", &json!([]))?, Json::Null);
    assert_eq!(result(&shell, "initRemoteComms", &json!({}))?, Json::Null);
    let loopback = json!({"directListenAddresses": ["/ip4/127.0.0.1/tcp/0"]});
    assert_eq!(result(&shell, "initRemoteComms", &loopback)?, Json::Null);
    let elsewhere =
        ask(&shell, "initRemoteComms", &json!({"directListenAddresses": ["/ip4/127.0.0.1/tcp/1"]}))?;
    assert_eq!(error_code(&elsewhere), Some(-32603), "{elsewhere}");
    let peer = json!({"peerId": "12D3KooWLJA15FRxDKc7KFSeSGYMDxD19eAZ5AvnK6cb6B2B45kH", "hints": ["/ip4/127.0.0.1/tcp/1"]});
    assert_eq!(result(&shell, "registerLocationHints", &peer)?, Json::Null);
    assert_eq!(result(&shell, "revoke", &kref)?, Json::Null);
    assert_eq!(result(&shell, "isRevoked", &kref)?, json!(true));
    assert_eq!(result(&shell, "terminateVat", &json!({"id": "v2"}))?, Json::Null);
    assert_eq!(result(&shell, "terminateSubcluster", &json!({"id": subcluster}))?, Json::Null);
    result(&shell, "launchSubcluster", &launch(config))?;
    assert_eq!(result(&shell, "terminateAllVats", &json!([]))?, Json::Null);
    let status = result(&shell, "getStatus", &json!([]))?;
    assert_eq!((status.get("vats"), status.get("subclusters")), (Some(&json!([])), Some(&json!([]))));
    assert_eq!(result(&shell, "shutdown", &json!({"whatever": 1}))?, json!({"status": "shutting down"}));
    Ok(())
}

#[test]
fn k202_a_message_gives_its_value_its_rejection_or_why_it_failed() -> anyhow::Result<()> {
    let shell = Shell::new();
    let root = shell.launch_example("chatter.js");
    let send = |target: &str, method: &str| ask(&shell, "queueMessage", &json!([target, method, []]));
    let value = send(&root, "counts")?;
    assert_eq!(text(&value, "/result/body"), "#{\"asked\":0,\"replied\":0}");
    // Nobody was met: the method throws.
    let rejected = send(&root, "ask")?;
    assert_eq!((error_code(&rejected), text(&rejected, "/error/data/code")), (Some(-32603), "REJECTED"));
    let rejection: Json =
        serde_json::from_str(text(&rejected, "/error/data/rejection/body").trim_start_matches('#'))?;
    let message = text(&rejected, "/error/message");
    assert!(message.contains("peer") && rejection.get("#error") == Some(&json!(message)), "{rejected}");
    let deleted = send("ko99999", "x")?;
    assert_eq!(text(&deleted, "/error/data/code"), "OBJECT_DELETED", "{deleted}");
    let malformed = send("nonsense", "x")?;
    assert_eq!(error_code(&malformed), Some(-32602), "{malformed}");
    Ok(())
}

#[test]
fn force_reset_ends_the_equal_ones_only_and_only_if_the_new_one_can_be_loaded() -> anyhow::Result<()> {
    let shell = Shell::new();
    shell.run(&["daemon", "start"]).done();
    let ids = |shell: &Shell| -> Vec<Json> {
        let list = shell.run(&["subclusters"]).done();
        list.as_array().into_iter().flatten().filter_map(|view| view.get("subclusterId").cloned()).collect()
    };
    for names in [&["a", "b"][..], &["a"], &["a", "b"]] {
        result(&shell, "launchSubcluster", &launch(counters(names)))?;
    }
    let mut again = counters(&["a", "b"]);
    again["forceReset"] = json!(true);
    let mut broken = again.clone();
    broken["vats"]["b"] = json!({"sourceSpec": "/nowhere/at-all.js"});
    assert!(ask(&shell, "launchSubcluster", &launch(broken))?.get("error").is_some());
    assert_eq!(ids(&shell), ["s1", "s2", "s3"]);
    result(&shell, "launchSubcluster", &launch(again))?;
    assert_eq!(ids(&shell), ["s2", "s4"]);
    Ok(())
}

#[test]
fn k200_state_is_cleared_and_the_daemon_goes_on() -> anyhow::Result<()> {
    let shell = Shell::new();
    let before = shell.run(&["daemon", "start"]).done();
    let root = shell.launch_example("counter.js");
    assert_eq!(shell.run(&["rpc", "clearState"]).done(), Json::Null);
    let after = shell.run(&["daemon", "status"]).done();
    assert_eq!(before.get("peerId"), after.get("peerId"));
    assert_ne!(before.get("incarnation"), after.get("incarnation"));
    shell.run(&["send", &root, "read"]).failed(1, "OBJECT_DELETED");
    let root = shell.launch_example("counter.js");
    assert_eq!(shell.run(&["send", &root, "bump"]).done(), json!(1));
    assert_eq!(shell.run(&["fsck"]).done().get("ok"), Some(&json!(true)));
    shell.kill();
    assert_eq!(shell.run(&["send", &root, "bump"]).done(), json!(2));
    let again = shell.run(&["daemon", "status"]).done();
    assert_eq!(again.get("incarnation"), after.get("incarnation"));
    Ok(())
}

#[test]
fn k170_k173_k174_a_daemon_keeps_its_system_subclusters_however_it_is_started_next() -> anyhow::Result<()> {
    let shell = Shell::new();
    let source = "import { makeDefaultExo } from '@metamask/kernel-utils/exo';
        export function buildRootObject(powers, parameters, baggage) {
          const count = key => { if (baggage.has(key)) baggage.set(key, baggage.get(key) + 1); else baggage.init(key, 1);
            return baggage.get(key); };
          return makeDefaultExo('registry', { bootstrap() { count('boots'); }, bump() { return count('bumps'); },
            boots() { return baggage.get('boots'); } });
        }";
    shell.file("registry.js", source);
    let entry = |name: &str| json!({"name": name, "config": {"bootstrap": "main", "vats": {"main": {"sourceSpec": "registry.js"}}}});
    let twice = shell.file("twice.json", &json!([entry("registry"), entry("registry")]).to_string());
    let message = shell.run(&["daemon", "start", "--system", &twice]).failed(2, "BAD_CONFIG");
    assert!(message.contains("two have one name"), "{message}");
    assert!(!shell.home().exists(), "nothing was started");

    let file = shell.file("system.json", &json!([entry("registry")]).to_string());
    shell.run(&["daemon", "start", "--system", &file]).done();
    let named = json!({"name": "registry"});
    let root = result(&shell, "getSystemSubclusterRoot", &named)?;
    let root = root.as_str().unwrap_or_default();
    assert_eq!(shell.run(&["send", root, "bump"]).done(), json!(1));
    shell.kill();
    // By a command that just needs a daemon, and without the source.
    std::fs::remove_file(std::path::Path::new(&file).with_file_name("registry.js"))?;
    assert_eq!(shell.run(&["send", root, "bump"]).done(), json!(2));
    assert_eq!(shell.run(&["send", root, "boots"]).done(), json!(1));
    assert_eq!(result(&shell, "getSystemSubclusterRoot", &named)?, json!(root));
    assert_eq!(shell.run(&["subclusters"]).done().pointer("/0/system"), Some(&json!("registry")));

    shell.run(&["daemon", "stop"]).done();
    let none = shell.file("none.json", "[]");
    shell.run(&["daemon", "start", "--system", &none]).done();
    assert_eq!(shell.run(&["subclusters"]).done(), json!([]));
    shell.run(&["send", root, "bump"]).failed(1, "OBJECT_DELETED");

    // One that cannot be launched is a daemon that does not start; the next one does.
    shell.run(&["daemon", "stop"]).done();
    shell.file("registry.js", "nonsense nonsense");
    let message = shell.run(&["daemon", "start", "--system", &file]).failed(1, "LAUNCH_FAILED");
    assert!(message.contains("registry"), "{message}");
    shell.run(&["daemon", "start"]).done();
    assert_eq!(shell.run(&["subclusters"]).done(), json!([]));
    Ok(())
}
