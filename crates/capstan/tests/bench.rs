//! `bench` measures, prints its figures in their one shape, and leaves nothing behind, however it ends.

use crate::shell::Shell;
use serde_json::Value as Json;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// An empty directory for temporary files.
fn scratch(shell: &Shell) -> PathBuf {
    let dir = PathBuf::from(shell.file("scratch", "") + ".d");
    assert!(std::fs::create_dir(&dir).is_ok());
    dir
}

fn keys(json: &Json) -> Vec<&str> {
    json.as_object().into_iter().flat_map(|object| object.keys()).map(String::as_str).collect()
}

#[test]
fn figures_have_their_shape_and_the_homes_are_removed() -> anyhow::Result<()> {
    let shell = Shell::new();
    let scratch = scratch(&shell);
    let mut command = shell.command(&["--json", "bench", "--seconds", "0.05", "--in-flight", "7,1"]);
    let output = command.env("TMPDIR", &scratch).output()?;
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let figures: Json = serde_json::from_slice(&output.stdout)?;
    assert_eq!(keys(&figures), ["local", "remote", "launch"]);
    let shapes: [(&str, &[&str]); 3] = [
        ("local", &["calls", "perSecond", "p50us", "p99us", "byInFlight"]),
        ("remote", &["calls", "perSecond", "p50us", "p99us", "byInFlight"]),
        ("launch", &["vats", "msPerVat", "kibPerVat"]),
    ];
    for (name, shape) in shapes {
        let part = figures.get(name).unwrap_or(&Json::Null);
        assert_eq!(keys(part), shape, "{figures}");
        for key in shape.iter().filter(|key| **key != "byInFlight") {
            assert!(
                part.get(key).and_then(Json::as_f64).is_some_and(|figure| figure > 0.0),
                "{key}: {figures}"
            );
        }
        let by_in_flight = part.get("byInFlight").and_then(Json::as_array);
        for (rate, in_flight) in by_in_flight.into_iter().flatten().zip([7, 1]) {
            assert_eq!(rate.get("inFlight"), Some(&Json::from(in_flight)), "{figures}");
            assert!(rate.get("perSecond").and_then(Json::as_u64).is_some_and(|rate| rate > 0), "{figures}");
        }
        assert_eq!(by_in_flight.map(Vec::len), (name != "launch").then_some(2), "{figures}");
    }
    assert_eq!(std::fs::read_dir(&scratch)?.count(), 0);
    assert!(!shell.home().exists());
    Ok(())
}

#[test]
fn an_interrupt_ends_it_and_the_homes_are_removed() -> anyhow::Result<()> {
    let shell = Shell::new();
    let scratch = scratch(&shell);
    let mut command = shell.command(&["--json", "bench", "--seconds", "1000", "--timeout", "1000"]);
    let child = command.env("TMPDIR", &scratch).stdout(Stdio::piped()).spawn()?;
    while std::fs::read_dir(&scratch)?.count() < 2 {
        std::thread::yield_now(); // Two kernels are up when the calls begin.
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status()?.success());
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("interrupted"), "{output:?}");
    assert_eq!(std::fs::read_dir(&scratch)?.count(), 0);
    Ok(())
}
