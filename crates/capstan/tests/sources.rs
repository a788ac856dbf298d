//! Vats from TypeScript and from several files.

use crate::shell::Shell;
use serde_json::{Value as Json, json};

const VAT: &str = "import { Far } from '@endo/far';
import { greet, type Greeting } from './lib/greet';
import { shout } from 'loud';

enum Mood { Calm, Loud }

export function buildRootObject(_powers: unknown, parameters: { name: string } | undefined) {
  return Far('greeter', {
    greet(mood: string): Greeting { return mood === Mood[Mood.Loud] ? shout(greet(parameters)) : greet(parameters); },
    fail(): void { console.error('here:', new Error('wrong')); },
    bootstrap() { return 'up'; },
  });
}
";

/// Writes the sources, in directories of their own.
fn sources(shell: &Shell) {
    shell.directory("src/lib");
    shell.directory("node_modules/loud");
    shell.file("src/vat.ts", VAT);
    shell.file(
        "src/lib/greet.ts",
        "export type Greeting = string;\nexport const greet = (to?: { name: string }): Greeting => `hello ${to?.name ?? 'nobody'}`;",
    );
    shell.file("node_modules/loud/package.json", "{\"main\": \"loud.js\"}");
    shell.file("node_modules/loud/loud.js", "exports.shout = text => text.toUpperCase();");
}

#[test]
fn a_cluster_runs_from_typescript_and_restarts_without_it() {
    let shell = Shell::new();
    sources(&shell);
    let config = json!({"bootstrap": "main", "vats": {
        "main": {"sourceSpec": "src/vat.ts", "parameters": {"name": "Ann"}}, "other": {"sourceSpec": "src/vat.ts"}}});
    let launched = shell.run(&["launch", &shell.file("cluster.json", &config.to_string())]).done();
    assert_eq!(launched.get("bootstrapResult"), Some(&json!("up")));
    let root = |name: &str| {
        launched.pointer(&format!("/vats/{name}/rootKref")).and_then(Json::as_str).unwrap_or_default()
    };
    assert_eq!(shell.run(&["send", root("main"), "greet", "Loud"]).done(), json!("HELLO ANN"));
    assert_eq!(shell.run(&["send", root("other"), "greet", "Calm"]).done(), json!("hello nobody"));
    // The program is in the store: neither the sources nor this daemon are needed again.
    shell.file("src/vat.ts", "no program any more");
    shell.kill();
    assert_eq!(shell.run(&["send", root("main"), "greet", "Loud"]).done(), json!("HELLO ANN"));
    let programs = shell.run(&["query", "select count(*) as n from code"]).done();
    assert_eq!(programs.pointer("/0/n"), Some(&json!(1)), "one program for both");
    shell.run(&["send", root("main"), "fail"]).done();
    let log = shell.raw(&["daemon", "logs", "--vat", "v1"]).stdout;
    let said = "[error] vat: here: Error: wrong\\n    at fail (vat.ts:10:";
    assert!(log.contains(said) && log.contains(" vat=v1 tag=\"console\""), "{log}");
    assert!(log.lines().all(|line| line.contains("vat=v1")), "{log}");
}

#[test]
fn a_bundle_is_made_once_and_launched_anywhere() {
    let shell = Shell::new();
    sources(&shell);
    let source = shell.file("src/vat.ts", VAT);
    let beside = shell.file("src/vat.bundle", "");
    let made = shell.run(&["bundle", &source]).done();
    assert_eq!(made.get("bundle").and_then(Json::as_str), Some(beside.as_str()));
    let bytes = std::fs::read(&beside).unwrap_or_default();
    assert_eq!(made.get("bytes"), Some(&json!(bytes.len())));
    assert_eq!(made.get("sha256"), Some(&json!(hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes)))));
    let bundle: Json = serde_json::from_slice(&bytes).unwrap_or_default();
    assert_eq!(bundle.get("moduleFormat"), Some(&json!("iife")));
    assert_eq!(
        (bundle.get("exports"), bundle.get("external")),
        (Some(&json!(["buildRootObject"])), Some(&json!(["@endo/far"])))
    );
    let elsewhere = shell.file("elsewhere.bundle", "");
    let again = shell.run(&["bundle", "-o", &elsewhere, &source]).done();
    assert_eq!(again.get("sha256"), made.get("sha256"));
    assert_eq!(again.get("bundle").and_then(Json::as_str), Some(elsewhere.as_str()));
    let launched = shell.run(&["launch", &elsewhere]).done();
    let root = launched.get("rootKref").and_then(Json::as_str).unwrap_or_default();
    assert_eq!(shell.run(&["send", root, "greet", "Loud"]).done(), json!("HELLO NOBODY"));
}

#[test]
fn a_daemons_rules_hold_for_vats_that_say_nothing() {
    let shell = Shell::new();
    shell
        .run(&[
            "daemon",
            "start",
            "--no-network",
            "--limit",
            "crankDeadlineMs=300",
            "--allowed-globals",
            "URL",
        ])
        .done();
    let source = "import { Far } from '@endo/far';
export const buildRootObject = () => Far('root', { spin() { for (;;); }, read: path => fs.promises.readFile(path, 'utf8') });";
    shell.file("a.js", source);
    shell.directory("given");
    shell.file("given/a.txt", "given");
    let vat = |more: Json| {
        let mut vat = json!({"sourceSpec": "a.js"});
        vat.as_object_mut()
            .into_iter()
            .for_each(|vat| vat.extend(more.as_object().cloned().unwrap_or_default()));
        shell.file("cluster.json", &json!({"bootstrap": "a", "vats": {"a": vat}}).to_string())
    };
    let launch = |config: &str| shell.run(&["rpc", "launchSubcluster", &params(config).to_string()]);
    let asks = launch(&vat(json!({"globals": ["Date"]})));
    assert!(asks.failed(1, "LAUNCH_FAILED").contains("requested unknown global \"Date\""), "{asks:?}");
    let launched = launch(&vat(json!({"globals": ["URL"], "platformConfig": {"fs": {"rootDir": "given", "promises": {"readFile": true}}}}))).done();
    let root = launched.get("rootKref").and_then(Json::as_str).unwrap_or_default();
    assert_eq!(shell.run(&["send", root, "read", "a.txt"]).done(), json!("given"));
    let outside = shell.run(&["send", root, "read", "../a.js"]).failed(1, "REJECTED");
    assert!(outside.contains("is outside allowed root"), "{outside}");
    let spun = shell.run(&["send", root, "spin"]);
    assert!(spun.stdout.contains("crank deadline of 300 ms exceeded"), "{spun:?}");
}

/// The configuration in a file, as the command line would send it, its bootstrap optional.
fn params(config: &str) -> Json {
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let mut json: Json = serde_json::from_str(&text).unwrap_or_default();
    let base = std::path::Path::new(config).parent().unwrap_or(std::path::Path::new("/"));
    capstan::cluster::make_absolute(&mut json, base);
    json!({"config": json, "bootstrapOptional": true})
}

const BUNDLE: &str = "{\"moduleFormat\":\"iife\",\"external\":[\"@endo/far\"],\"exports\":[\"buildRootObject\"],\"code\":\"var __vatExports__ = (function (exports, __vatImports__) { exports.buildRootObject = () => __vatImports__('@endo/far').Far('root', { hi: () => 'there' }); return exports; })({}, __vatImports__);\"}";

#[test]
fn a_bundle_may_come_from_the_web_or_be_in_the_configuration() -> std::io::Result<()> {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
            let status = if first.contains("/a.bundle") { "200 OK" } else { "404 Not Found" };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", BUNDLE.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(BUNDLE.as_bytes()));
        }
    });
    let shell = Shell::new();
    let launch = |spec: &str| {
        let config = json!({"bootstrap": "a", "vats": {"a": {"bundleSpec": spec}}});
        let config = shell.file("cluster.json", &config.to_string());
        shell.run(&["rpc", "launchSubcluster", &params(&config).to_string()])
    };
    for spec in [format!("http://127.0.0.1:{port}/a.bundle"), format!("data:application/json,{BUNDLE}")] {
        let launched = launch(&spec).done();
        let root = launched.get("rootKref").and_then(Json::as_str).unwrap_or_default();
        assert_eq!(shell.run(&["send", root, "hi"]).done(), json!("there"));
    }
    let gone = format!("http://127.0.0.1:{port}/b.bundle");
    assert_eq!(
        launch(&gone).failed(1, "LAUNCH_FAILED"),
        format!("fetch of user code {gone} failed: 404 Not Found")
    );
    Ok(())
}
