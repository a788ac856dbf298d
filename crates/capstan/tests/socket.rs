//! The control socket, spoken by hand.

use crate::shell::Shell;
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub(crate) fn connect(shell: &Shell) -> anyhow::Result<BufReader<UnixStream>> {
    let stream = UnixStream::connect(shell.home().join("daemon.sock"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(BufReader::new(stream))
}

pub(crate) fn say(line: &mut BufReader<UnixStream>, text: &str) -> std::io::Result<()> {
    line.get_mut().write_all(text.as_bytes())
}

pub(crate) fn hear(line: &mut BufReader<UnixStream>) -> anyhow::Result<Json> {
    let mut text = String::new();
    line.read_line(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

pub(crate) fn error_code(response: &Json) -> Option<i64> {
    response.pointer("/error/code").and_then(Json::as_i64)
}

#[test]
fn k206_requests_are_answered_by_id_and_refusals_have_their_numbers() -> anyhow::Result<()> {
    let shell = Shell::new();
    shell.run(&["daemon", "start"]).done();
    let mut line = connect(&shell)?;
    say(&mut line, "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"getStatus\"}\n")?;
    let status = hear(&mut line)?;
    assert_eq!((status.get("id"), status.pointer("/result/vats")), (Some(&json!("a")), Some(&json!([]))));
    for (request, id, code) in [
        ("nonsense\n", Json::Null, -32700),
        ("{\"id\":1}\n", json!(1), -32600),
        ("[]\n", Json::Null, -32600),
        ("{\"id\":2,\"method\":\"nope\"}\n", json!(2), -32601),
        ("{\"id\":3,\"method\":\"pingVat\"}\n", json!(3), -32602),
        ("{\"id\":4,\"method\":\"pingVat\",\"params\":{\"id\":\"v1\",\"x\":1}}\n", json!(4), -32602),
        ("{\"id\":5,\"method\":\"pingVat\",\"params\":{\"id\":\"v1\"}}\n", json!(5), -32603),
        ("{\"method\":\"nope\"}\n", Json::Null, -32601),
    ] {
        say(&mut line, request)?;
        let response = hear(&mut line)?;
        assert_eq!((response.get("id"), error_code(&response)), (Some(&id), Some(code)), "{request}");
    }
    say(&mut line, "{\"id\":6,\"method\":\"pingVat\",\"params\":{\"id\":\"v1\"}}\n")?;
    let response = hear(&mut line)?;
    let data = json!({"name": "VatNotFoundError", "code": "VAT_NOT_FOUND"});
    assert_eq!(response.pointer("/error/data"), Some(&data));
    assert_eq!(response.pointer("/error/message"), Some(&json!("Vat does not exist.")));
    Ok(())
}

#[test]
fn a_slow_request_does_not_hold_up_the_next_and_half_closing_is_no_departure() -> anyhow::Result<()> {
    let shell = Shell::new();
    let root = shell.launch_example("chatter.js");
    let mut line = connect(&shell)?;
    let slow = json!({"id": "slow", "method": "queueMessage", "params": [root, "slow", []]});
    let quick = json!({"id": "quick", "method": "queueMessage", "params": [root, "counts", []]});
    say(&mut line, &format!("{slow}\n{quick}\n"))?;
    let first = hear(&mut line)?;
    assert_eq!(first.get("id"), Some(&json!("quick")));
    assert!(
        first.pointer("/result/body").is_some_and(|body| body == "#{\"asked\":0,\"replied\":0}"),
        "{first}"
    );

    let mut other = connect(&shell)?;
    say(&mut other, &quick.to_string())?;
    other.get_mut().shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    other.read_to_string(&mut answer)?;
    assert_eq!(serde_json::from_str::<Json>(&answer)?.get("id"), Some(&json!("quick")));
    // The slow one ends with the daemon, which does not wait for it.
    shell.run(&["daemon", "stop"]).done();
    let end = hear(&mut line)?;
    assert_eq!((end.get("id"), error_code(&end)), (Some(&json!("slow")), Some(-32603)));
    Ok(())
}

#[test]
fn k218_a_request_that_is_too_long_is_refused() -> anyhow::Result<()> {
    let shell = Shell::new();
    shell.run(&["daemon", "start"]).done();
    let mut line = connect(&shell)?;
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        // The daemon stops reading at the limit and closes.
        if line.get_mut().write_all(&chunk).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = line.read_to_end(&mut answer);
    if !answer.is_empty() {
        assert_eq!(error_code(&serde_json::from_slice(&answer)?), Some(-32600));
    }
    assert_eq!(shell.run(&["status"]).code, 0);
    Ok(())
}
