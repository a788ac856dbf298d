//! The demo holds, in both handshakes, and leaves nothing behind.

use crate::shell::Shell;
use serde_json::{Value as Json, json};

fn plays(handshake: &str) {
    let shell = Shell::new();
    let scratch = shell.file("scratch", "") + ".d";
    assert!(std::fs::create_dir(&scratch).is_ok());
    let mut command = shell.command(&["--json", "demo", "--handshake", handshake]);
    let output = command.env("TMPDIR", &scratch).output();
    let output =
        output.map(|output| (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()));
    let (code, text) = output.unwrap_or_default();
    let told: Json = serde_json::from_str(&text).unwrap_or_default();
    assert_eq!((code, told.get("ok")), (Some(0), Some(&json!(true))), "{text}");
    assert!(told.get("steps").and_then(Json::as_array).is_some_and(|steps| steps.len() >= 14), "{text}");
    assert!(text.contains("PEER_RESTARTED") && text.contains("OBJECT_DELETED"), "{text}");
    assert_eq!(std::fs::read_dir(&scratch).map(Iterator::count).ok(), Some(0));
    assert!(!shell.home().exists());
}

#[test]
fn the_demo_holds_between_session_kernels() {
    plays("session");
}

#[test]
fn the_demo_holds_between_classic_kernels() {
    plays("classic");
}
