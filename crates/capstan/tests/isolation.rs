//! Vats in processes of their own (04 §2): what such a process has, and what its end means to others.

use crate::shell::Shell;
use serde_json::{Value as Json, json};
use std::process::Command;

fn started() -> Shell {
    let shell = Shell::new();
    shell.run(&["daemon", "start", "--no-network", "--isolation", "process"]).done();
    shell
}

/// The vats' processes, oldest first: children of the daemon with that argument.
fn vats(shell: &Shell) -> Vec<u32> {
    let parent = shell.pid().map(|pid| pid.to_string()).unwrap_or_default();
    let found = Command::new("pgrep").args(["-P", &parent, "-f", "vat-worker"]).output();
    let found = found.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    found.lines().filter_map(|line| line.parse().ok()).collect()
}

fn kill(pid: u32) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()), "no process {pid}");
}

#[test]
fn vats_in_processes_call_each_other_and_leave_no_process_behind() {
    let shell = started();
    let (counter, other) = (shell.launch_example("counter.js"), shell.launch_example("counter.js"));
    assert_eq!(shell.run(&["send", &counter, "bump"]).done(), json!(1));
    assert_eq!(shell.run(&["send", &other, "bump"]).done(), json!(1));
    assert_eq!(vats(&shell).len(), 2);
    shell.run(&["vat", "terminate", "v2"]).done();
    let left = vats(&shell);
    assert_eq!(left.len(), 1);
    shell.run(&["daemon", "stop"]).done();
    assert!(!std::path::Path::new(&format!("/proc/{}", left[0])).exists());

    shell.run(&["daemon", "start", "--no-network", "--isolation", "process"]).done();
    assert_eq!(shell.run(&["send", &counter, "bump"]).done(), json!(2));
    assert_eq!(shell.run(&["fsck"]).done().get("ok"), Some(&json!(true)));
}

#[test]
fn the_end_of_a_vats_process_is_that_vats_matter() {
    let shell = started();
    let (counter, neighbour) = (shell.launch_example("counter.js"), shell.launch_example("counter.js"));
    assert_eq!(shell.run(&["send", &counter, "bump"]).done(), json!(1));
    assert_eq!(shell.run(&["send", &neighbour, "bump"]).done(), json!(1));
    let before = vats(&shell);
    kill(before[0]);
    assert_eq!(shell.run(&["send", &neighbour, "bump"]).done(), json!(2));
    // It is brought up again from its store.
    assert_eq!(shell.run(&["send", &counter, "bump"]).done(), json!(2));
    let after = vats(&shell);
    assert!(after.contains(&before[1]) && !after.contains(&before[0]), "{before:?} {after:?}");
}

#[test]
fn a_vat_that_hangs_in_its_process_is_ended_alone() {
    let shell = started();
    let source = "export function buildRootObject() { return Far('spinner', { bootstrap() {}, spin() { for (;;); } }); }";
    let source = shell.file("spinner.js", &format!("import {{ Far }} from '@endo/far';\n{source}"));
    let config =
        json!({"bootstrap": "s", "vats": {"s": {"sourceSpec": source, "limits": {"crankDeadlineMs": 300}}}});
    let launched = shell.run(&["launch", &shell.file("cluster.json", &config.to_string())]).done();
    let spinner = launched.get("rootKref").and_then(Json::as_str).unwrap_or_default().to_owned();
    let counter = shell.launch_example("counter.js");
    let text = shell.run(&["send", &spinner, "spin"]).failed(1, "INTERNAL_ERROR");
    assert!(text.contains("crank deadline of 300 ms exceeded"), "{text}");
    assert_eq!(shell.run(&["send", &counter, "bump"]).done(), json!(1));
    assert_eq!(vats(&shell).len(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_vats_process_has_no_environment_and_is_filtered() {
    let shell = started();
    shell.launch_example("counter.js");
    let pid = vats(&shell)[0];
    let of = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    assert_eq!(of("environ"), "");
    let status = of("status");
    assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    let limits = of("limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    assert_eq!(files.split_whitespace().nth(3), Some("0"), "{files}");
}

#[test]
fn a_vat_in_its_process_asks_the_daemon_for_its_files() {
    let shell = started();
    let source = "import { Far } from '@endo/far';
        const tell = promise => promise.then(found => found ?? 'there', error => error.message);
        export const buildRootObject = () => Far('reader', {
            bootstrap() {},
            read: path => tell(fs.promises.readFile(path, 'utf8')),
            access: path => tell(fs.promises.access(path)),
            exists: path => fs.existsSync(path),
            seen: paths => paths.filter(fs.existsSync).length,
        });";
    let source = shell.file("reader.js", source);
    shell.directory("files");
    shell.file("files/note.txt", "hello");
    let given =
        json!({"rootDir": "files", "existsSync": true, "promises": {"readFile": true, "access": true}});
    let config =
        json!({"bootstrap": "r", "vats": {"r": {"sourceSpec": source, "platformConfig": {"fs": given}}}});
    let launched = shell.run(&["launch", &shell.file("cluster.json", &config.to_string())]).done();
    let reader = launched.get("rootKref").and_then(Json::as_str).unwrap_or_default().to_owned();
    let ask = |method: &str, argument: &str| shell.run(&["send", &reader, method, argument]).done();
    assert_eq!(ask("exists", "note.txt"), json!(true));
    assert_eq!(ask("exists", "absent"), json!(false));
    assert_eq!(ask("read", "note.txt"), json!("hello"));
    assert_eq!(ask("access", "note.txt"), json!("there"));
    assert!(ask("read", "../reader.js").to_string().contains("is outside allowed root"));
    assert_eq!(ask("seen", &json!(vec!["note.txt"; 100]).to_string()), json!(100));
    let refused = shell.run(&["send", &reader, "exists", "../reader.js"]).failed(1, "REJECTED");
    assert!(refused.contains("is outside allowed root"), "{refused}");
}
