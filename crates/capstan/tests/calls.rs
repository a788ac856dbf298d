//! Launching, calling, and what comes back.

use crate::shell::Shell;
use serde_json::{Value as Json, json};

const MIRROR: &str = "
import { Far } from '@endo/far';
export function buildRootObject() {
  return Far('mirror', {
    give(...values) { return values; },
    thing() { return Far('thing', { poke() { return 'ouch'; } }); },
    fail(text) { throw TypeError(text); },
    failWith(value) { throw value; },
    never() { return new Promise(() => {}); },
    odd(name) {
      return { nan: NaN, inf: Infinity, minus: -Infinity, undef: undefined, big: 123n, error: RangeError('r') }[name];
    },
  });
}";

#[test]
fn a_vat_is_launched_called_restarted_and_ended() {
    let shell = Shell::new();
    let root = shell.launch_example("counter.js");
    assert_eq!(shell.run(&["send", &root, "bump", "5"]).done(), json!(5));
    assert_eq!(shell.run(&["send", &root, "bump", "-2"]).done(), json!(3));
    let vats = shell.run(&["vats"]).done();
    let vat = vats.pointer("/0/vatId").and_then(Json::as_str).unwrap_or_default();
    assert_eq!(vats.pointer("/0/state"), Some(&json!("running")));
    for verb in ["ping", "restart"] {
        assert_eq!(shell.run(&["vat", verb, vat]).done(), json!({"ok": true}));
    }
    assert_eq!(shell.run(&["send", &root, "read"]).done(), json!(3));
    let status = shell.run(&["status"]).done();
    assert_eq!((status.get("vats"), status.get("subclusters")), (Some(&json!(1)), Some(&json!(1))));
    let subclusters = shell.run(&["subclusters"]).done();
    assert_eq!(subclusters.pointer("/0/vats/counter"), Some(&json!(vat)));

    assert_eq!(shell.run(&["subcluster", "terminate", "s1"]).done(), json!({"ok": true}));
    shell.run(&["send", &root, "read"]).failed(1, "OBJECT_DELETED");
    shell.run(&["vat", "ping", vat]).failed(1, "VAT_NOT_FOUND");
    shell.run(&["subcluster", "terminate", "s1"]).failed(1, "SUBCLUSTER_NOT_FOUND");
    assert_eq!(shell.run(&["vats"]).done(), json!([]));
    assert_eq!(shell.run(&["dead-letters"]).done(), json!([]));
    assert_eq!(shell.run(&["fsck"]).done().get("ok"), Some(&json!(true)));
}

#[test]
fn values_travel_both_ways() {
    let shell = Shell::new();
    let launched = shell.run(&["launch", &shell.file("mirror.js", MIRROR)]).done();
    assert_eq!(launched.get("bootstrapResult"), Some(&Json::Null));
    assert_eq!(launched.pointer("/vats/mirror/rootKref"), launched.get("rootKref"));
    let root = launched.get("rootKref").and_then(Json::as_str).unwrap_or_default();
    let values = [
        json!(null),
        json!([1, 2.5, "x", true]),
        json!({"@bigint": "-12345678901234567890"}),
        json!({"@undefined": true}),
        json!({"@number": "-Infinity"}),
        json!({"@error": {"name": "TypeError", "message": "m"}}),
        json!({"@object": {"@kref": "not a reference"}}),
    ];
    let texts: Vec<String> = values.iter().map(Json::to_string).collect();
    let mut arguments = vec!["send", root, "give", "bare", "ko1"];
    arguments.extend(texts.iter().map(String::as_str));
    let mut expected = vec![json!("bare"), json!("ko1")];
    expected.extend(values);
    assert_eq!(shell.run(&arguments).done(), json!(expected));
    for (name, expected) in [
        ("nan", json!({"@number": "NaN"})),
        ("inf", json!({"@number": "Infinity"})),
        ("undef", json!({"@undefined": true})),
        ("big", json!({"@bigint": "123"})),
        ("error", json!({"@error": {"name": "RangeError", "message": "r"}})),
    ] {
        assert_eq!(shell.run(&["send", root, "odd", name]).done(), expected);
    }
    let thing = shell.run(&["send", root, "thing"]).done();
    assert_eq!(thing.get("iface"), Some(&json!("Alleged: thing")));
    let kref = thing.get("@kref").and_then(Json::as_str).unwrap_or_default();
    assert_eq!(shell.run(&["send", kref, "poke"]).done(), json!("ouch"));
    let given = shell.run(&["send", root, "give", &thing.to_string()]).done();
    assert_eq!(given.pointer("/0/@kref"), thing.get("@kref"));
    let people = shell.raw(&["send", root, "give", "1", "x"]);
    assert_eq!(people.stdout, "[1,\"x\"]\n");

    assert_eq!(shell.run(&["revoke", kref]).done(), json!({"ok": true}));
    shell.run(&["send", kref, "poke"]).failed(1, "OBJECT_REVOKED");
    let collected = shell.run(&["gc"]).done();
    let count = |key: &str| collected.get(key).and_then(Json::as_u64).unwrap_or_default();
    assert!(count("objectsAfter") < count("objectsBefore"), "{collected}");
}

#[test]
fn rejections_and_time_outs_are_told_apart() {
    let shell = Shell::new();
    let launched = shell.run(&["launch", &shell.file("mirror.js", MIRROR)]).done();
    let root = launched.get("rootKref").and_then(Json::as_str).unwrap_or_default();
    let failed = shell.run(&["send", root, "fail", "boom"]);
    assert_eq!(failed.failed(1, "REJECTED"), "boom");
    let value = json!({"@error": {"name": "TypeError", "message": "boom"}});
    assert_eq!(failed.json().pointer("/error/value"), Some(&value));
    let odd = shell.run(&["send", root, "failWith", "[1]"]);
    odd.failed(1, "REJECTED");
    assert_eq!(odd.json().pointer("/error/value"), Some(&json!([1])));
    let people = shell.raw(&["send", root, "fail", "boom"]);
    assert!(people.code == 1 && people.stdout.is_empty() && people.stderr.contains("boom"), "{people:?}");
    shell.run(&["send", root, "never", "--timeout", "0.3"]).failed(4, "TIMEOUT");
    shell.run(&["send", "ko99999", "m"]).failed(1, "OBJECT_DELETED");
    shell.run(&["query", "delete from vat"]).failed(1, "QUERY_REFUSED");
    assert_eq!(shell.run(&["query", "select 1 as one"]).done().as_array().map(Vec::len), Some(1));
}

#[test]
fn a_launch_that_fails_leaves_nothing() {
    let shell = Shell::new();
    let config =
        json!({"bootstrap": "a", "vats": {"a": {"sourceSpec": "a.js"}, "b": {"sourceSpec": "b.js"}}});
    let config = shell.file("cluster.json", &config.to_string());
    shell.file("b.js", "export function buildRootObject() { throw Error('will not'); }");
    for (source, why) in [
        ("export function buildRootObject( {", ""),
        ("export const nothing = 1;", "buildRootObject"),
        ("throw Error('at once');", "at once"),
        ("export function buildRootObject() { return 1; }", ""),
    ] {
        let message = shell.run(&["launch", &shell.file("a.js", source)]).failed(1, "LAUNCH_FAILED");
        assert!(message.contains(why), "{message}");
    }
    shell.file("a.js", "import { Far } from '@endo/far'; export const buildRootObject = () => Far('a', {});");
    shell.run(&["launch", &config]).failed(1, "LAUNCH_FAILED");
    shell.file("b.js", "import { Far } from '@endo/far'; export const buildRootObject = () => Far('b', {});");
    // A cluster's bootstrap vat must have the method; a single source need not.
    shell.run(&["launch", &config]).failed(1, "LAUNCH_FAILED");
    shell.file(
        "a.js",
        "import { Far } from '@endo/far';
         export const buildRootObject = () => Far('a', { bootstrap() { throw TypeError('no thanks'); } });",
    );
    let rejected = shell.run(&["launch", &config]);
    assert!(rejected.failed(1, "LAUNCH_FAILED").contains("no thanks"), "{rejected:?}");
    assert_eq!(shell.run(&["vats"]).done(), json!([]));
    assert_eq!(shell.run(&["subclusters"]).done(), json!([]));
    shell.file(
        "a.js",
        "import { Far } from '@endo/far';
         export const buildRootObject = () => Far('a', { bootstrap(vats) { return Object.keys(vats); } });",
    );
    let launched = shell.run(&["launch", &config]).done();
    assert_eq!(launched.get("bootstrapResult"), Some(&json!(["a", "b"])));
}
