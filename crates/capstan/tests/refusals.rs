//! What is refused before anything is asked of a kernel: no daemon is started, none is needed.

use crate::shell::Shell;
use serde_json::json;

/// Whether the refusals left no trace.
fn nothing_was_started(shell: &Shell) {
    assert!(!shell.home().exists());
}

#[test]
fn what_the_parser_refuses_is_a_document_too() {
    let shell = Shell::new();
    for arguments in [
        &[][..],
        &["daemon"],
        &["send"],
        &["no-such-command"],
        &["send", "ko1", "m", "--no-such-flag"],
        &["daemon", "start", "--handshake", "old"],
        &["daemon", "start", "--listen", "127.0.0.1:80"],
        &["daemon", "start", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-network"],
        &["daemon", "start", "--relay", "/ip4/127.0.0.1/tcp/1"],
        &["daemon", "purge"],
        &["daemon", "start", "--limit", "speed=1"],
        &["daemon", "start", "--link-limit", "maxQueue=1"],
        &["daemon", "start", "--allowed-globals", "process"],
        &["daemon", "logs", "-f"],
        &["status", "--timeout", "0"],
        &["status", "--timeout", "soon"],
        &["status", "--timeout", "-1"],
        &["--home", "", "status"],
        &["peer", "hint", "12D3KooWLJA15FRxDKc7KFSeSGYMDxD19eAZ5AvnK6cb6B2B45kH", "nowhere"],
    ] {
        shell.run(arguments).failed(2, "USAGE");
    }
    let told = shell.run(&["send"]).failed(2, "USAGE");
    assert_eq!(told, "the following required arguments were not provided: <TARGET> <METHOD>");
    // The flag counts wherever it stands.
    shell.raw(&["send", "--json"]).failed(2, "USAGE");
    let people = shell.raw(&["send"]);
    assert!(people.code == 2 && people.stdout.is_empty() && people.stderr.contains("Usage: capstan send"));
    nothing_was_started(&shell);
}

#[test]
fn references_urls_and_json_that_do_not_parse() {
    let shell = Shell::new();
    for (arguments, code) in [
        (&["send", "xx", "m"][..], "BAD_REFERENCE"),
        (&["send", "ko01", "m"], "BAD_REFERENCE"),
        (&["send", "v1", "m"], "BAD_REFERENCE"),
        (&["send", "ocap:x", "m"], "BAD_URL"),
        (&["send", "http://x@y", "m"], "BAD_URL"),
        (&["send", "ko1", "m", "{\"a\":"], "BAD_JSON"),
        (&["send", "ko1", "m", "{\"@what\": 1}"], "BAD_JSON"),
        (&["send", "ko1", "m", "{\"@kref\": \"xx\"}"], "BAD_REFERENCE"),
        (&["send", "ko1", "m", "[{\"@url\": \"xx\"}]"], "BAD_URL"),
        (&["url", "issue", "kp1"], "BAD_REFERENCE"),
        (&["url", "issue", ""], "BAD_REFERENCE"),
        (&["url", "redeem", "ocap:zOid"], "BAD_URL"),
        (&["url", "redeem", "nonsense"], "BAD_URL"),
        (&["url", "revoke", "3"], "BAD_REFERENCE"),
        (&["revoke", "kp1"], "BAD_REFERENCE"),
        (&["revoke", "o+1"], "BAD_REFERENCE"),
        (&["vat", "ping", "r1"], "BAD_REFERENCE"),
        (&["vat", "restart", "V1"], "BAD_REFERENCE"),
        (&["vat", "terminate", "v99999999999999999999"], "BAD_REFERENCE"),
        (&["subcluster", "terminate", "v1"], "BAD_REFERENCE"),
        (&["peer", "close", "nobody"], "BAD_REFERENCE"),
        (&["daemon", "logs", "--vat", "1"], "BAD_REFERENCE"),
        (&["rpc", "getStatus", "{"], "BAD_JSON"),
    ] {
        shell.run(arguments).failed(2, code);
    }
    nothing_was_started(&shell);
}

#[test]
fn files_that_are_no_configuration_or_no_program() {
    let shell = Shell::new();
    let config = |text: &str| shell.file("cluster.json", text);
    for (text, why) in [
        ("{", "EOF"),
        ("[]", "not an object"),
        ("{\"bootstrap\": \"a\", \"vats\": {}}", "invalid bootstrap vat name \"a\""),
        (
            "{\"bootstrap\": \"a\", \"vats\": {\"a\": {\"sourceSpec\": \"a.js\"}}, \"x\": 1}",
            "unknown field `x`",
        ),
        ("{\"bootstrap\": \"a\", \"vats\": {\"a\": {}}}", "exactly one of"),
    ] {
        let message = shell.run(&["launch", &config(text)]).failed(2, "BAD_CONFIG");
        assert!(message.contains(why), "{message}");
    }
    let missing = "{\"bootstrap\": \"a\", \"vats\": {\"a\": {\"sourceSpec\": \"missing.js\"}}}";
    let message = shell.run(&["launch", &config(missing)]).failed(1, "IO");
    assert!(message.contains("missing.js"), "{message}");
    shell.run(&["launch", "/nowhere/at-all.js"]).failed(1, "IO");
    shell.run(&["launch", "/dev/zero"]).failed(1, "IO");
    shell.run(&["launch", &shell.file("readme.txt", "")]).failed(2, "BAD_CONFIG");
    let source = shell.file("vat.ts", "import { a } from './a';\nexport const b: number = ;\n");
    for command in ["launch", "bundle"] {
        let message = shell.run(&[command, &source]).failed(1, "LAUNCH_FAILED");
        assert!(message.starts_with(&format!("{source}:2:26: ")), "{message}");
    }
    let source = shell.file("vat.ts", "import { a } from './a';\nexport const b: number = a;\n");
    let message = shell.run(&["launch", &source]).failed(1, "LAUNCH_FAILED");
    assert_eq!(message, format!("{source}:1:19: cannot import \"./a\": there is no such file"));
    shell.run(&["bundle", "/nowhere/at-all.ts"]).failed(1, "IO");
    nothing_was_started(&shell);
}

#[test]
fn no_daemon_is_started_where_none_is_wanted() {
    let shell = Shell::new();
    for arguments in [
        &["--no-spawn", "status"][..],
        &["send", "ko1", "m", "--no-spawn"],
        &["--no-spawn", "identity", "show"],
        &["daemon", "status"],
        &["daemon", "stop"],
        &["daemon", "logs"],
    ] {
        shell.run(arguments).failed(3, "NO_DAEMON");
    }
    assert_eq!(shell.run(&["daemon", "purge", "--force"]).done(), json!({"purged": true}));
    shell.run(&["fsck"]).failed(1, "IO");
    nothing_was_started(&shell);
}

#[test]
fn help_completions_and_types_need_nothing() -> anyhow::Result<()> {
    let shell = Shell::new();
    let help = shell.raw(&["--help"]);
    assert!(help.code == 0 && help.stdout.contains("capstan launch counter.js"), "{help:?}");
    for name in ["bash", "zsh", "fish"] {
        let script = shell.raw(&["completions", name]);
        assert!(script.code == 0 && script.stdout.contains("capstan"), "{script:?}");
    }
    let types = shell.raw(&["types"]);
    assert!(types.code == 0 && types.stdout.contains("declare module '@endo/far'"), "{types:?}");
    let dir = tempfile::tempdir()?;
    let written = shell.run(&["types", &dir.path().to_string_lossy()]).done();
    let file = dir.path().join("capstan.d.ts");
    assert_eq!(written, json!({"file": file.to_string_lossy()}));
    assert_eq!(std::fs::read_to_string(file)?, types.stdout);
    shell.run(&["types", "/dev/null/nowhere"]).failed(1, "IO");
    nothing_was_started(&shell);
    Ok(())
}
